"""Which models a stage names: its input, a critic's start, the reward models in its reward."""

from __future__ import annotations

import dataclasses
from typing import Any

from align.config import Stage


def references(stage: Stage) -> list[str]:
    """Every model reference in a stage's configuration, its input first, each once.

    Found by name: the fields `model` and `…_model` of the stage and of whatever values it holds, so
    that a reward written elsewhere is seen too.
    """
    return list(dict.fromkeys(_found(stage)))


def _found(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [name for item in value for name in _found(item)]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return []
    found: list[str] = []
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        named = field.name == "model" or field.name.endswith("_model")
        if named and isinstance(held, str) and held:
            found.append(held)
        else:
            found += _found(held)
    return found
