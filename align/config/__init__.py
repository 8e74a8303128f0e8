"""Configuration: frozen, keyword-only dataclasses, one for each part of a stage and each stage.

Values live in `recipes/`; every field here is also a dotted flag of the stage's script
(`--optim.lr 2e-6`). Nothing here imports torch, so `--help` answers at once.
"""

from align.config.distill import Distill
from align.config.parts import (
    Checkpoints,
    Compute,
    ConfigError,
    Engine,
    Evaluation,
    Lora,
    Optim,
    Sampling,
    Stage,
    Training,
)
from align.config.passes import Dpo, Kto, Passes, RewardModel, Sft
from align.config.rollouts import Grpo, Ppo, Rollouts
from align.config.sampled import Keep, Sample

__all__ = [
    "Checkpoints",
    "Compute",
    "ConfigError",
    "Distill",
    "Dpo",
    "Engine",
    "Evaluation",
    "Grpo",
    "Keep",
    "Kto",
    "Lora",
    "Optim",
    "Passes",
    "Ppo",
    "RewardModel",
    "Rollouts",
    "Sample",
    "Sampling",
    "Sft",
    "Stage",
    "Training",
]
