"""The rewards by name: `get("accuracy", unparseable=0.5)`; a wrong name or parameter is answered
with the right ones.
"""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from rewards.accuracy import Accuracy
from rewards.core import Reward
from rewards.cosine import Cosine
from rewards.format import Format
from rewards.language_consistency import LanguageConsistency
from rewards.reasoning_steps import ReasoningSteps
from rewards.repetition import Repetition
from rewards.soft_overlong import SoftOverlong

REWARDS: dict[str, type[Reward]] = {
    kind.name: kind
    for kind in (
        Accuracy,
        Format,
        ReasoningSteps,
        Cosine,
        Repetition,
        LanguageConsistency,
        SoftOverlong,
    )
}


def names() -> tuple[str, ...]:
    """The names `get` knows."""
    return tuple(REWARDS)


def get(name: str, **params: Any) -> Reward:
    """The reward called `name` with its parameters.

    Raises ValueError for an unknown name or a value out of range, TypeError for an unknown or
    missing parameter; each says what to type instead.
    """
    if name not in REWARDS:
        raise ValueError(
            f"there is no reward called {name!r}{_did_you_mean(name, REWARDS)} "
            f"The names are: {', '.join(REWARDS)}"
        )
    kind = REWARDS[name]
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    known = {f.name for f in fields}
    for param in params:
        if param not in known:
            raise TypeError(
                f"the reward {name!r} has no parameter {param!r}{_did_you_mean(param, known)} "
                f"Its parameters are: {', '.join(f.name for f in fields) or 'none'}"
            )
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in params]
    if missing:
        example = ", ".join(f"{param}=..." for param in missing)
        raise TypeError(
            f'the reward {name!r} needs {", ".join(missing)}: rewards.get("{name}", {example})'
        )
    return kind(**params)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
