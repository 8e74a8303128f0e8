"""Sampling and scoring: prompts in, scored groups of completions out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import data
import rewards
from align import order
from align.config import Distill, Grpo, Rollouts
from align.config import Sample as SampleConfig
from align.objectives.advantage import group_advantage, leave_one_out, reinforce_plus_plus
from align.rollout import Engine, Request, Sample, seed_of
from align.stages.context import Context
from align.terminal.progress import console

NOT_COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected")


class RewardError(RuntimeError):
    """A reward that broke the protocol; the message names the step, the prompt and the value."""


@dataclass(kw_only=True)
class Rolled:
    """One prompt with its completions, their scores and, once known, their advantages. first: the
    number of its first completion among this process's.
    """

    row: int
    prompt: list[int]
    samples: list[Sample]
    texts: list[str]
    scores: list[rewards.Score]
    advantages: list[float] = field(default_factory=list)
    first: int = 0

    @property
    def values(self) -> list[float]:
        """Shaped rewards, NaN where none applies."""
        return [math.nan if score.value is None else score.value for score in self.scores]

    @property
    def dead(self) -> bool:
        """All right or all wrong (all rewarded alike where nothing judges correctness)."""
        correct = [score.correct for score in self.scores]
        judged = correct if None not in correct else [score.value for score in self.scores]
        return len(set(judged)) == 1


class Prompts:
    """The data set as prompt ids, asked by `ask`; rows with too long a prompt are left out."""

    def __init__(
        self,
        rows: Any,
        config: Rollouts | Distill | SampleConfig,
        context: Context,
        *,
        ask: Callable[[data.chat.Prompt], data.chat.Prompt] = lambda prompt: prompt,
    ) -> None:
        self.rows = rows
        limit = config.sampling.max_prompt_tokens
        encoded = [data.chat.prompt_ids(context.tokenizer, ask(one)) for one in rows["prompt"]]
        self.kept = [(i, ids) for i, ids in enumerate(encoded) if len(ids) <= limit]
        dropped = len(encoded) - len(self.kept)
        if not self.kept:
            raise data.DataError(f"every prompt is longer than {limit} tokens; raise "
                                 "--sampling.max-prompt-tokens")  # fmt: skip
        if dropped and context.accelerator.is_main_process:
            console.print(
                f"dropped {dropped:,} of {len(encoded):,} prompts longer than {limit} tokens"
            )
        self.columns = reward_columns(rows)


class Sampler:
    """Samples groups with an engine."""

    def __init__(
        self,
        config: Rollouts | Distill | SampleConfig,
        context: Context,
        engine: Engine,
        prompts: Prompts,
    ) -> None:
        self.config = config
        self.context = context
        self.engine = engine
        self.prompts = prompts

    def sample(self, step: int, places: Sequence[int]) -> list[Rolled]:
        """Completions of the prompts at these places of the endless pass, not scored yet."""
        return self.rolled(places, self.engine.sample(self.requests(step, places)))

    def requests(self, step: int, places: Sequence[int]) -> list[Request]:
        """What is asked of the engine for these places.

        Seeded by place, not by row: a small data set may come round twice in a step.
        """
        seed = self.config.seed
        return [
            Request(
                prompt=ids,
                seeds=[seed_of(seed, step, place, i) for i in range(self.config.samples)],
            )
            for place, (_, ids) in zip(places, self._chosen(places), strict=True)
        ]

    def rolled(self, places: Sequence[int], answers: Sequence[list[Sample]]) -> list[Rolled]:
        """The engine's answers for these places, as groups."""
        decode = self.context.tokenizer.decode
        return [
            Rolled(
                row=row,
                prompt=ids,
                samples=samples,
                texts=[decode(sample.ids, skip_special_tokens=True) for sample in samples],
                scores=[],
                advantages=[0.0] * len(samples),
            )
            for (row, ids), samples in zip(self._chosen(places), answers, strict=True)
        ]

    def _chosen(self, places: Sequence[int]) -> list[tuple[int, list[int]]]:
        kept = self.prompts.kept
        return [kept[order.at(place, len(kept), self.config.seed)] for place in places]


class Roller(Sampler):
    """Samples groups and scores them with the stage's reward."""

    def __init__(
        self,
        config: Rollouts | SampleConfig,
        context: Context,
        engine: Engine,
        prompts: Prompts,
    ) -> None:
        super().__init__(config, context, engine, prompts)
        self.reward = as_reward(config.reward)

    def score(self, step: int, groups: Sequence[Rolled]) -> None:
        """Fill in every group's scores with one call of the reward."""
        rows = [self.prompts.rows[group.row] for group in groups for _ in group.samples]
        texts = [text for group in groups for text in group.texts]
        chat = bool(rows) and not isinstance(rows[0]["prompt"], str)
        completions = [data.rows.assistant(text) for text in texts] if chat else texts
        ids = [sample.ids for group in groups for sample in group.samples]
        try:
            scores = judged(self.reward, completions, ids, rows, self.prompts.columns)
        except RewardError as error:
            raise RewardError(f"step {step}: {error}") from error
        at = 0
        for group in groups:
            group.scores = scores[at : at + len(group.samples)]
            at += len(group.samples)


def reward_columns(rows: Any) -> list[str]:
    """The columns of a data set that a reward gets to see."""
    return [name for name in rows.column_names if name not in NOT_COLUMNS]


def judged(
    reward: rewards.Reward,
    completions: Sequence[Any],
    ids: Sequence[Sequence[int]],
    rows: Sequence[Any],
    columns: Sequence[str],
    *,
    patience: float | None = None,
) -> list[rewards.Score]:
    """A score a completion, each of finite numbers. patience: where not the reward's own. Raises
    RewardError for whatever the reward raised or did to this process, and for scores that are none.
    """
    try:
        seconds = reward.patience if patience is None else patience
        with (
            _torch_as_it_was(),
            rewards.contained(patience=seconds, completions=len(completions)),
        ):
            scores = reward.score(
                completions,
                prompts=[row["prompt"] for row in rows],
                completion_ids=list(ids),
                **{name: [row[name] for row in rows] for name in columns},
            )
    except rewards.ContainedError as error:
        raise RewardError(f"the reward {reward.name} {error}") from error
    except Exception as error:  # a user's function may raise anything
        raise RewardError(f"the reward {reward.name} {rewards.raised(error)}") from error
    try:
        rewards.core.check_scores(scores, completions, reward=reward.name)
    except ValueError as error:
        raise RewardError(str(error)) from error
    return scores


@contextmanager
def _torch_as_it_was() -> Iterator[None]:
    """Whatever a reward with a model of its own does to what all share: the generators, which
    dropout draws from, and the default type.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def as_reward(reward: Callable[..., Any]) -> rewards.Reward:
    """The reward itself, or one made of a plain function of TRL's protocol."""
    return reward if isinstance(reward, rewards.Reward) else rewards.from_trl(reward)


def set_advantages(groups: Sequence[Rolled], config: Grpo, context: Context) -> None:
    """Advantages of this rank's groups; statistics over the batch look at every rank's rewards."""
    # A rank without groups must still take part in what all ranks gather.
    sizes = context.gathered([len(groups)])
    rows = context.gathered([group.values for group in groups])
    if not groups:
        return
    before = sum(sizes[: context.accelerator.process_index])
    everywhere = torch.tensor(rows, dtype=torch.float64)
    advantages = _advantages(everywhere, config)[before : before + len(groups)]
    for group, values in zip(groups, advantages.tolist(), strict=True):
        group.advantages = values
        if config.mask_truncated:
            group.advantages = [
                0.0 if sample.truncated else value
                for sample, value in zip(group.samples, values, strict=True)
            ]


def _advantages(rewards_: Tensor, config: Grpo) -> Tensor:
    if config.advantage == "leave-one-out":
        return leave_one_out(rewards_)
    if config.advantage == "reinforce++":
        return reinforce_plus_plus(rewards_)
    return group_advantage(rewards_, scale=config.scale)
