"""Stage configurations that both sides read their figures from; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import data
import rewards
from align import recipe
from align.bench.case import LR, Case
from align.config import Checkpoints, Compute, Grpo, Optim
from rewards.core import text_of


@dataclass(frozen=True, kw_only=True)
class MeanCharacter(rewards.Reward):
    """The mean of the text's character codes, in hundreds: no two texts have the same."""

    name: ClassVar[str] = "mean_character"

    def score(self, completions: Sequence[Any], **columns: Any) -> list[rewards.Score]:
        texts = [text_of(one) for one in completions]
        values = [sum(map(ord, text)) / max(1, len(text)) / 100 for text in texts]
        return [rewards.Score(value=value, parts={self.name: value}) for value in values]


def step_config(case: Case) -> Grpo:
    """The demo's GRPO stage, one step a run; nothing in it that TRL is not asked for too.

    A model that has not been taught the form earns nothing, and we leave out what has no advantage
    while TRL computes it. So there is one more term, under which every completion has one.
    """
    config = recipe.load("smollm2").stage(Grpo)
    terms = (*config.reward.terms, (1.0, MeanCharacter()))
    return replace(
        config,
        **common(case),
        steps=1,
        prompts=case.prompts,
        samples=case.group,
        reward=rewards.WeightedSum(terms),
        sampling=replace(config.sampling, max_tokens=case.max_tokens),
        engine=replace(config.engine, kind=case.engine),
        kl_every=0,
    )


def common(case: Case) -> dict[str, Any]:
    """What every stage's configuration has here."""
    return {
        "model": case.model,
        "data": data.resolve(case.data or "arithmetic"),
        "optim": Optim(lr=LR),
        "compute": Compute(
            precision=case.precision,
            token_budget=case.token_budget,
            gradient_checkpointing=case.checkpointing,
        ),
        "checkpoints": Checkpoints(every=0),
    }


def wake(config: Grpo) -> None:
    """Start what the reward starts on first use, its workers and their imports."""
    config.reward(["<answer>x + y</answer>", "<answer>y + x</answer>"], solution=["y + x"] * 2)
