"""Which columns a reward looks into. One that looks into none can tell completions apart by their
text alone, so that texts as unlike as can be show whether it does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import rewards
from data.reward_scores import columns_of, completions_of, leaves, patience_of


class _Watched(list[Any]):
    """A column that notes that somebody looked into it."""

    def __init__(self, name: str, values: Sequence[Any], read: set[str]) -> None:
        super().__init__(values)
        self._note = lambda: read.add(name)

    def __iter__(self) -> Iterator[Any]:
        self._note()
        return super().__iter__()

    def __getitem__(self, place: Any) -> Any:
        self._note()
        return super().__getitem__(place)


def columns_read(
    reward: Callable[..., Any], rows: Sequence[Mapping[str, Any]], answers: Sequence[str]
) -> frozenset[str]:
    """Names of the rows' columns (and "prompts") that it, or a reward within it, names or looks
    into as it judges these answers. What opens a gate does not count; of one that raises, as one
    behind a gate may on rows of another kind, all but the solution count.
    """
    columns = columns_of(rows)
    read: set[str] = set()
    for leaf in leaves(reward):
        read |= _named(leaf, columns)
        judge = leaf if hasattr(leaf, "score") else rewards.from_trl(leaf)
        watched = {name: _Watched(name, given, read) for name, given in columns.items()}
        watched["completion_ids"] = [[0] * len(answer) for answer in answers]
        completions = completions_of(rows, answers)
        try:
            with rewards.contained(patience=patience_of(judge), completions=len(completions)):
                judge.score(completions, **watched)
        except Exception:  # a user's function may raise anything on rows of another kind
            read |= columns.keys() - {"solution"}
    return frozenset(read & columns.keys())


def _named(leaf: Any, columns: Mapping[str, Any]) -> set[str]:
    """Columns that are its parameters or stand in its code as words."""
    function = getattr(leaf, "fn", leaf)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    named: set[Any] = {word for word in getattr(code, "co_consts", ()) if isinstance(word, str)}
    with suppress(TypeError, ValueError):  # a builtin has no signature
        named |= inspect.signature(function).parameters.keys()
    named |= set(getattr(leaf, "needs", ()))
    return named & columns.keys()
