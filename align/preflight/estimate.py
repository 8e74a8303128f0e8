"""How long a whole run takes, from what a trial measured. What it writes: see `room`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from align.config import Distill, Grpo, Kto, Ppo, Rollouts, Sample
from align.preflight.longest import tokens_of
from align.preflight.sampled import Seen
from align.stages.context import Context
from align.terminal.findings import Findings
from align.terminal.progress import duration

PASS = 1 / 3  # of forward and backward, a pass without gradient


def estimate(
    stage: Any,
    config: Any,
    context: Context,
    *,
    seen: Sequence[Seen],
    sampling: float,
    training: float,
    found: Findings,
) -> None:
    """A note. sampling, training: tokens a second of one process, 0 for none."""
    processes = context.accelerator.num_processes
    parts: dict[str, float] = {}
    if seen and sampling:
        parts["sampling"] = _sampled(stage, config, seen) / sampling / processes
    if training:
        parts["training"] = _trained(stage, config, seen) / training / processes
    if parts:
        listed = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items())
        found.note("time", f"about {duration(sum(parts.values()))} for {stage.steps:,} steps "
                   f"({listed}); scoring and saving come on top")  # fmt: skip


def _sampled(stage: Any, config: Any, seen: Sequence[Seen]) -> float:
    """Completion tokens of the whole run, if they stay as long as those seen."""
    length = fmean(length for each in seen for length in each.lengths)
    share = config.on_policy if isinstance(config, Distill) else 1.0
    prompts = len(stage.chosen) if isinstance(config, Sample) else stage.steps * config.prompts
    return prompts * share * config.samples * length


def _trained(stage: Any, config: Any, seen: Sequence[Seen]) -> float:
    """Tokens of the whole run that go forward and backward, other passes counted by their share."""
    if not isinstance(config, Rollouts | Distill):
        tokens = sum(tokens_of(row) for row in stage.rows) * config.epochs
        return tokens * (1 + PASS if isinstance(config, Kto) else 1)
    prompts = stage.steps * config.prompts
    asked = prompts * fmean(len(ids) for _, ids in stage.prompts.kept)
    if isinstance(config, Distill):
        sampled = _sampled(stage, config, seen) if seen else 0.0
        own = sum(len(one.ids) for _, one in stage.own.values()) / max(1, len(stage.own))
        return asked + sampled + prompts * (1 - config.on_policy) * own
    alive = [each for each in seen if len(set(each.values)) > 1 or isinstance(config, Ppo)]
    share = max(len(alive), 1) / len(seen) if not (config.beta or config.entropy) else 1.0
    read = 0.0
    if isinstance(config, Ppo):
        read = 2.0
    elif isinstance(config, Grpo):
        every = 1.0 if config.beta else 1 / config.kl_every if config.kl_every else 0.0
        read = every + (stage.optimizer_steps > 1)
    tokens = (asked + _sampled(stage, config, seen)) * share
    return tokens * (config.iterations + read * PASS)
