"""What a stage names: models (its input, a critic's start, a teacher, its reward's reward models)
and earlier stages whose models or data it reads.

A reward that loads a model says so (`loads_model`), so that this module need not know it.
"""

from __future__ import annotations

import dataclasses
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


def counted_layers(reference: str) -> tuple[int, str]:
    """`layers_of` with a number, 0 for all layers. Raises ValueError, which says how it is
    written.
    """
    keep, rest = layers_of(reference)
    if keep is None:
        return 0, rest
    if not (keep.isdecimal() and int(keep)) or rest.startswith("layers:"):
        raise ValueError(
            f"{reference}: {keep!r} is no number of layers; write layers:N:REFERENCE once, "
            "with N at least 1, as in --model layers:14:@sft"
        )
    return int(keep), rest


def stages_named(reference: str) -> list[str]:
    """The stages that a model reference names: sft for `@sft`, `layers:14:@sft`, `a | @sft`."""
    _, rest = layers_of(reference)
    parts = [part.strip() for part in rest.split("|")]
    return [part[1:] for part in parts if part.startswith("@")]


def parents(stage: Stage, *, free: bool = True) -> list[str]:
    """The earlier stages that it reads the models or the data of, each once.

    free: also those that only fields which a resumed stage may be given anew read.
    """
    models = [name for reference in references(stage) for name in stages_named(reference)]
    fields = [field.name for field in dataclasses.fields(stage)]
    read = tuple(getattr(stage, name) for name in fields if free or name not in stage.free)
    written = [source.stage for source in data.from_stages(read)]
    return list(dict.fromkeys((*models, *written)))


def loading(reward: Any) -> list[Any]:
    """The reward models in a reward, however deep."""
    if getattr(reward, "loads_model", False):
        return [reward]
    return [found for inner in getattr(reward, "inner", ()) for found in loading(inner)]
