"""A reward model as a reward: in GRPO and PPO, in a weighted sum, in trl.GRPOTrainer.

    reward = ModelReward(model="@reward_model")                     # in a recipe
    trl.GRPOTrainer(..., reward_funcs=ModelReward(model="my/rm"))   # anywhere

It reads texts, not token ids, and renders them with its own tokenizer and chat template, exactly as
its training pairs were; prompts that come several times are computed once. torch is imported when
the first text is scored, so a recipe may hold one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import rewards
from rewards.core import column, text_of

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class ModelReward(rewards.Reward):
    """The score of a sequence classifier with one label.

    model: a folder, a hub id, or `@stage` for what an earlier stage of the run wrote. reads:
    "text" is the whole completion (harmlessness), "answer" what stands in <answer>, or after
    </think>, or the whole where there is neither (helpfulness). scale, shift: value = scale x
    (score - shift). token_budget: tokens computed together. precision: bf16 computes under
    autocast. own_tokenizer: it may have another tokenizer than the policy, whose texts it reads;
    else a stage refuses that.

    `score` needs the column `prompts`. Raises ModelError (of `align.models`) for a model that is no
    reward model.
    """

    name: ClassVar[str] = "model"
    loads_model: ClassVar[bool] = True
    model: str
    reads: Literal["text", "answer"] = "text"
    label: str = "model"
    scale: float = 1.0
    shift: float = 0.0
    token_budget: int = 8192
    precision: Literal["bf16", "fp32"] = "bf16"
    own_tokenizer: bool = False

    def __post_init__(self) -> None:
        if self.reads not in ("text", "answer"):
            raise ValueError(f"reads={self.reads!r} must be 'text' or 'answer'")

    def part_names(self) -> tuple[str, ...]:
        return (self.label,)

    def score(self, completions: Sequence[Any], **columns: Any) -> list[rewards.Score]:
        prompts = column("prompts", len(completions), columns, reward=self.label)
        texts = [text_of(completion) for completion in completions]
        if self.reads == "answer":
            texts = [final_answer(text) for text in texts]
        values = _scorer(self.model, self.token_budget, self.precision)(prompts, texts)
        return [
            rewards.Score(value=self.scale * (value - self.shift), parts={self.label: value})
            for value in values
        ]


def final_answer(text: str) -> str:
    """What stands in the last <answer>, else after the last </think>, else the whole text."""
    found = _ANSWER.findall(text)
    if found:
        return found[-1].strip()
    return text.rpartition("</think>")[2].strip()


def placed(reward: Any, place: Callable[[str], str]) -> Any:
    """The same reward with every reward model's `model` replaced by `place(model)`."""
    if isinstance(reward, ModelReward):
        return dataclasses.replace(reward, model=place(reward.model))
    if isinstance(reward, rewards.Reward) and reward.inner:
        return reward.with_inner([placed(inner, place) for inner in reward.inner])
    return reward


def attach(path: str, scorer: Callable[..., list[float]]) -> None:
    """Let reward models of that folder be scored by `scorer`, which is there already."""
    _attached[path] = scorer


_attached: dict[str, Callable[..., list[float]]] = {}


def _scorer(path: str, token_budget: int, precision: str) -> Callable[..., list[float]]:
    return _attached.get(path) or _loaded(path, token_budget, precision)


@lru_cache(maxsize=4)
def _loaded(path: str, token_budget: int, precision: str) -> Callable[..., list[float]]:
    """Scores texts with the model in that folder; loaded once a process."""
    from align.text_scorer import TextScorer

    if path.startswith("@"):
        raise ValueError(
            f"the reward model {path} is a stage of a recipe; outside of one give its folder, "
            f"such as runs/NAME/{path[1:]}/model"
        )
    return TextScorer.load(path, token_budget=token_budget, precision=precision)
