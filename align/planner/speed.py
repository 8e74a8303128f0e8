"""Seconds a step takes, from the multiplications in it and an assumed rate.

2 operations a weight and token forward, 6 forward and backward, 8 with checkpointing; a head counts
for scored tokens alone; 12 x width x pairs for attention. A rate is what a whole step reaches, not
what a data sheet says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.config import Distill, Dpo, Grpo, Kto, Ppo, Sample
from align.planner.memory import Machine, Models

# Operations a second: two cores with AVX-512 bf16; one GPU of the H100's class in bf16.
RATES = {False: 0.3e12, True: 150e12}
SAMPLING = {"vllm": {False: 1.0, True: 0.3}, "hf": {False: 0.3, True: 0.05}}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of a step's parts; rate: operations a second that were assumed."""

    sample: float
    train: float
    rate: float

    @property
    def seconds(self) -> float:
        return self.sample + self.train


def speed(
    config: Any, models: Models, a_step: float, sampled: float, machine: Machine, *,
    rate: float | None = None,
) -> Speed:  # fmt: skip
    """a_step: tokens that a process trains on a step; sampled: that it samples."""
    gpu = machine.gpus > 0
    rate = rate or RATES[gpu]
    if config.compute.precision == "fp32":
        rate /= 4 if gpu else 2.5
    weights = models.policy.projected + models.policy.embedding / 2
    if models.critic is not None:
        weights += models.critic.projected
    forward = 2 * weights * a_step
    passes = 3.0 + config.compute.gradient_checkpointing
    train = 0.0 if isinstance(config, Sample) else passes * getattr(config, "iterations", 1)
    reads = float(_reads(config))
    engine = getattr(getattr(config, "engine", None), "kind", "")
    share = SAMPLING["hf" if engine == "hf" else "vllm"][gpu]
    return Speed(
        sample=2 * models.policy.parameters * sampled / (rate * share),
        train=forward * (train + reads) / rate,
        rate=rate,
    )


def _reads(config: Any) -> float:
    """Passes without a gradient over the trained tokens, a step."""
    if isinstance(config, Ppo):
        return 2
    if isinstance(config, Grpo):
        steps = config.minibatches * config.iterations
        every = 1.0 if config.beta else 1 / config.kl_every if config.kl_every else 0.0
        return (steps > 1) + every
    if isinstance(config, Distill | Dpo):
        return 1
    return 2 if isinstance(config, Kto) else 0
