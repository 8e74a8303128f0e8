"""What GRPO and PPO share: sample a rollout, score it, cut it into minibatches of packs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from align.config import Rollouts
from align.modeling.lora import adapters_off, merged_weights
from align.modeling.policy import Policy
from align.objectives.importance import importance_weights
from align.objectives.reduce import token_weights, tokens_per_step
from align.packing import Completion, Group, Pack
from align.rollout import Engine, EngineError
from align.stages.agreement import check_engine, due
from align.stages.ahead import Ahead
from align.stages.base import StageBase
from align.stages.context import Context
from align.stages.figures import Clock, rollout_figures, sample_rows
from align.stages.modules import frozen_policy
from align.stages.rolled import Prompts, Rolled, Roller
from align.training.allocator import trim_unless_kept
from align.training.batch import Batch


class RolloutStage(StageBase):
    """collect: a rollout, cut into minibatches of packs. A stage adds advantages and a loss."""

    def __init__(self, config: Rollouts, context: Context, rows: Any, engine: Engine) -> None:
        super().__init__(config, context)
        self.prompts = Prompts(rows, config, context)
        self.engine = engine
        self.roller = Roller(config, context, engine, self.prompts)
        self.steps = config.steps or math.ceil(len(self.prompts.kept) / config.prompts)
        self.optimizer_steps = config.minibatches * config.iterations
        self.cursor = 0  # prompts drawn so far, over all ranks
        self.ahead = Ahead(self.roller, context) if config.ahead else None
        self.synced = 0  # the step at whose beginning the engine got the weights
        self.syncs = 0  # in this process
        self.unchecked = False  # what is sampled next with the policy's weights is compared
        self.reference: Policy | None = None
        if self.wants_reference() and not config.lora.rank:
            self.reference = self._load_reference()

    def arithmetic(self) -> dict[str, str]:
        config, kept = self.config, len(self.prompts.kept)
        prompts = self.steps * config.prompts
        completions = prompts * config.samples
        tokens = sum(len(ids) for _, ids in self.prompts.kept) / kept * prompts
        return {
            "prompts": f"{prompts:,} ({prompts / kept:.2f} passes over {kept:,})",
            "completions": f"{completions:,} ({config.prompts} prompts x {config.samples} a step)",
            "optimizer steps": f"{self.steps * self.optimizer_steps:,}"
            f" ({config.minibatches} minibatches x {config.iterations} iterations a step)",
            "tokens": f"{tokens:,.0f} of prompts, "
            f"at most {completions * config.sampling.max_tokens:,} of completions",
        }

    def collect(self, step: int) -> Batch:
        cursor = self.cursor
        try:
            return self._collect(step)
        except EngineError as error:
            # `state` is that of the step's beginning again.
            self.cursor = cursor
            if self.ahead:
                self.ahead.give_back(step)
            raise EngineError(f"step {step}: {error}", shared=error.shared) from error

    def _collect(self, step: int) -> Batch:
        clock = Clock()
        groups, replaced = self.roll(step, clock)
        self.compare(groups)
        figures = rollout_figures([*groups, *replaced], self.context)
        begun = time.perf_counter()
        minibatches = self.minibatches(groups, figures)
        self.fill(step, minibatches, groups, figures)
        clock.seconds["pack"] = time.perf_counter() - begun
        return Batch(
            minibatches=minibatches,
            columns=self.columns(step),
            passes=self.config.iterations,
            metrics=figures | clock.figures(),
            samples=sample_rows([*groups, *replaced], self.prompts.rows, limit=self._logged()),
        )

    def columns(self, step: int) -> tuple[str, ...]:
        """What each token of this step's packs carries."""
        raise NotImplementedError

    def compare(self, groups: Sequence[Rolled]) -> None:
        """Set what can be known of the advantages before a forward pass."""

    def fill(
        self,
        step: int,
        minibatches: list[list[Pack]],
        groups: Sequence[Rolled],
        figures: dict[str, float],
    ) -> None:
        """Set the packs' columns that take a forward pass, under the weights before any update."""

    def sample_columns(self, group: Rolled, sample: int) -> dict[str, float | Sequence[float]]:
        """What a completion carries into its pack besides its weight."""
        return {"sampler": group.samples[sample].logprobs}

    def counts(self, group: Rolled, sample: int) -> bool:
        """Whether the completion is part of the mean."""
        return True

    def moves(self, group: Rolled, sample: int) -> bool:
        """Whether it can move the weights; one that cannot is not computed."""
        return True

    def wants_reference(self) -> bool:
        return bool(self.config.beta)

    def state(self) -> dict[str, Any]:
        ahead = {"ahead": self.ahead.state()} if self.ahead else {}
        return {"cursor": self.cursor} | ahead

    def load_state(self, state: dict[str, Any]) -> None:
        self.cursor = state["cursor"]
        if self.ahead:
            self.ahead.load_state(state["ahead"])

    def close(self) -> None:
        self.engine.close()
        if self.ahead:
            self.ahead.close()

    def draw(self, step: int, wanted: int, clock: Clock) -> list[Rolled]:
        """This rank's share of the next prompts' groups, scored."""
        places = self._places(wanted)
        self.cursor += wanted
        drawn = self.ahead is not None and self.ahead.has(step)
        if not drawn:
            self._sync(step, clock)
        with clock("sample"):
            groups = self._sampled(step, places)
        if not drawn:
            self._check(groups)
        if self.ahead and step < self.steps:
            # These weights will be one update old when the next step learns from them: it weighs
            # each token by trainer / sampler (`correction`), and its ratios start from the
            # trainer's own log-probs, never from the sampler's.
            self._sync(step, clock)
            self.ahead.begin(step + 1, self._places(wanted))
            if self.unchecked:  # once the weights move on, they cannot be compared any more
                with clock("sample"):
                    following = self.ahead.drawn()
                self._check(following)
        with clock("score"):
            self.roller.score(step, groups)
        return groups

    def _places(self, wanted: int) -> list[int]:
        """This rank's share of the next prompts."""
        return self.context.share(list(range(self.cursor, self.cursor + wanted)))

    def _sampled(self, step: int, places: Sequence[int]) -> list[Rolled]:
        """Groups sampled now or ahead. What went wrong on one rank is raised on all."""
        groups, said = [], ""
        try:
            if self.ahead and self.ahead.has(step):
                groups = self.ahead.take(places)
            else:
                groups = self.roller.sample(step, places)
        except EngineError as error:
            said = str(error)
        if found := [one for one in self.context.gathered([said]) if one]:
            raise EngineError(found[0], shared=True)
        return groups

    def _sync(self, step: int, clock: Clock) -> None:
        """Give the engine the weights of the step's beginning, once."""
        if self.synced == step:
            return
        with clock("sync"):
            self.engine.sync(merged_weights(self.context.model))
            if self.config.lora.rank:
                # Merged copies came and went between what stays: given back, GRPO of SmolLM2 with
                # 1,024 tokens a pack peaked at 5,241 MiB instead of 5,597.
                trim_unless_kept()
        self.synced = step
        self.syncs += 1
        self.unchecked = self.config.engine.kind == "server" and due(self.syncs)

    def _check(self, groups: Sequence[Rolled]) -> None:
        """Compare what was sampled with the policy's weights with the policy, where it is time."""
        if self.unchecked:
            temperature = self.config.sampling.temperature
            check_engine(groups, self.context, self.packed, temperature=temperature)
            self.unchecked = False

    def roll(self, step: int, clock: Clock) -> tuple[list[Rolled], list[Rolled]]:
        """This rank's groups, and those that were replaced."""
        return self.draw(step, self.config.prompts, clock), []

    def correction(self, old: Tensor, pack: Pack, lengths: Tensor) -> Tensor | None:
        """Weights from the sampler's distribution to the trainer's, [C]."""
        if self.config.importance == "off":
            return None
        return importance_weights(
            trainer=old,
            sampler=pack.columns["sampler"],
            sequence=pack.sequence,
            lengths=lengths,
            level=self.config.importance,
            high=self.config.importance_cap,
        )

    @contextmanager
    def as_reference(self) -> Iterator[Policy]:
        """Inside, a policy that gives the reference's log-probs."""
        policy = self.context.policy
        with nullcontext() if self.reference else adapters_off(policy.model):
            yield self.reference or policy

    def _logged(self) -> int:
        """Samples that this rank writes a step; 0 for all."""
        every = self.context.accelerator.num_processes
        return math.ceil(self.config.samples_logged / every)

    def minibatches(self, groups: Sequence[Rolled], figures: dict[str, float]) -> list[list[Pack]]:
        """Packs of each optimizer step, every token with its weight in the mean."""
        count = self.config.minibatches
        cuts = [
            groups[i * len(groups) // count : (i + 1) * len(groups) // count] for i in range(count)
        ]
        sequences = [self.context.total(sum(len(g.samples) for g in cut))[0] for cut in cuts]
        tokens = [self.context.total(sum(self._tokens(g) for g in cut))[0] for cut in cuts]
        share = tokens_per_step(rollout_tokens=round(sum(tokens)), optimizer_steps=count)
        minibatches = []
        for i, cut in enumerate(cuts):
            over = share if self.config.reduction == "dapo" else tokens[i]
            packed = self._pack(cut, sequences=round(sequences[i]), tokens=max(over, 1.0))
            minibatches.append(packed)
        computed = sum(pack.tokens for packs in minibatches for pack in packs)
        figures["computed_tokens"] = self.context.total(computed)[0]
        return minibatches

    def _pack(self, cut: Sequence[Rolled], *, sequences: int, tokens: float) -> list[Pack]:
        """Lay out the completions that can move the weights."""
        config = self.config
        groups = []
        for group in cut:
            lengths = torch.tensor([len(sample.ids) for sample in group.samples])
            weights = token_weights(
                lengths,
                config.reduction,
                sequences=sequences,
                tokens=tokens,
                max_tokens=config.sampling.max_tokens,
            ).tolist()
            completions = [
                Completion(
                    ids=sample.ids, columns={"weight": weight, **self.sample_columns(group, i)}
                )
                for i, (sample, weight) in enumerate(zip(group.samples, weights, strict=True))
                if self.counts(group, i) and self.moves(group, i)
            ]
            if completions:
                groups.append(Group(prompt=group.prompt, completions=completions))
        return [one.to(self.context.accelerator.device) for one in self.packed(groups)]

    def _tokens(self, group: Rolled) -> int:
        return sum(
            len(sample.ids) for i, sample in enumerate(group.samples) if self.counts(group, i)
        )

    def _load_reference(self) -> Policy:
        """The stage's input, frozen."""
        policy = self.context.policy
        reference = frozen_policy(
            self.context.model_path, policy, trust_remote_code=self.config.trust_remote_code
        )
        reference.plans = policy.plans  # what the trial at the start found out
        return reference
