"""What a stage names: models (its input, a critic's start, a teacher, its reward's reward models)
and earlier stages whose models or data it reads.

A reward that loads a model says so (`loads_model`), so that this module need not know it.
"""

from __future__ import annotations

from typing import Any

import data
from align.config import Stage


def references(stage: Stage) -> list[str]:
    """Every model reference in a stage's configuration, its input first, each once."""
    found = [stage.model, getattr(stage, "critic_model", ""), getattr(stage, "teacher", "")]
    found += [reward.model for reward in loading(getattr(stage, "reward", None))]
    return list(dict.fromkeys(name for name in found if name))


def layers_of(reference: str) -> tuple[str | None, str]:
    """`layers:14:@sft` in two, "14" and "@sft"; None and the reference where it has no prefix."""
    if not reference.startswith("layers:"):
        return None, reference
    keep, _, rest = reference.removeprefix("layers:").partition(":")
    return keep, rest.strip()


def stage_named(reference: str) -> str | None:
    """The stage that a model reference names: sft for `@sft` and for `layers:14:@sft`."""
    _, rest = layers_of(reference)
    return rest[1:] if rest.startswith("@") else None


def parents(stage: Stage) -> list[str]:
    """The earlier stages that it reads the models or the data of, each once."""
    models = [stage_named(reference) for reference in references(stage)]
    written = [source.stage for source in data.from_stages(stage)]
    return list(dict.fromkeys(name for name in (*models, *written) if name))


def loading(reward: Any) -> list[Any]:
    """The reward models in a reward, however deep."""
    if getattr(reward, "loads_model", False):
        return [reward]
    return [found for inner in getattr(reward, "inner", ()) for found in loading(inner)]
