"""Which models a stage names: its input, a critic's start, the reward models in its reward.

A reward that loads a model says so (`loads_model`), so that this module need not know it.
"""

from __future__ import annotations

from typing import Any

import rewards
from align.config import Stage


def references(stage: Stage) -> list[str]:
    """Every model reference in a stage's configuration, its input first, each once."""
    found = [stage.model, getattr(stage, "critic_model", "")]
    found += [reward.model for reward in loading(getattr(stage, "reward", None))]
    return list(dict.fromkeys(name for name in found if name))


def loading(reward: Any) -> list[Any]:
    """The reward models in a reward, however deep in weighted sums."""
    if isinstance(reward, rewards.WeightedSum):
        return [found for _, term in reward.terms for found in loading(term)]
    return [reward] if getattr(reward, "loads_model", False) else []
