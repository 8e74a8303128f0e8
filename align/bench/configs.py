"""Stage configurations that both sides read their figures from; no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import data
from align import recipe
from align.bench.case import LR, Case
from align.config import Checkpoints, Compute, Grpo, Optim


def step_config(case: Case) -> Grpo:
    """The demo's GRPO stage, one step a run; nothing in it that TRL is not asked for too."""
    config = recipe.load("smollm2").stage(Grpo)
    return replace(
        config,
        **common(case),
        steps=1,
        prompts=case.prompts,
        samples=case.group,
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
        "compute": Compute(precision=case.precision, token_budget=case.token_budget),
        "checkpoints": Checkpoints(every=0),
    }


def wake(config: Grpo) -> None:
    """Start what the reward starts on first use, its workers and their imports."""
    config.reward(["<answer>x + y</answer>", "<answer>y + x</answer>"], solution=["y + x"] * 2)
