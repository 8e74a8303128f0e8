"""The shapes a row may come in, and one mapper each to TRL's standard columns.

A shape is known by its columns, so a local file and a hub data set go the same way and there is no
second copy of a mapping. The table is ordered from the particular to the general: the first shape
whose columns are all there is taken.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from data import labelled, mappers, preference
from data.rows import DataError, Row

Use = Literal["openings", "pairs", "kto", "sft"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One row layout.

    columns: those that tell it, none of them null. makes: what a mapped row must have or be left
    out, as public sets hold some rows of no use (no boxed answer, say).
    Empty for rows that have TRL's columns already: they pass as they are, for the validator.
    uses: what a row can be read as, the default first; empty where there is but one way.
    """

    name: str
    columns: frozenset[str]
    map: Callable[[Row], Row]
    makes: tuple[str, ...]
    uses: tuple[str, ...] = ()


def _shape(
    name: str, columns: str, map: Callable[[Row], Row], makes: str, uses: tuple[str, ...] = ()
) -> Shape:
    return Shape(
        name=name,
        columns=frozenset(columns.split()),
        map=map,
        makes=tuple(makes.split()),
        uses=uses,
    )


SHAPES: tuple[Shape, ...] = (
    _shape("mawps", "original_text equation ans", mappers.mawps, "prompt"),
    _shape("svamp", "Body Question Equation Answer", mappers.svamp, "prompt"),
    _shape("countdown", "nums target", mappers.countdown, "prompt"),
    _shape("math", "problem answer", mappers.math, "prompt"),
    _shape("numinamath", "problem solution", mappers.numinamath, "prompt solution"),
    _shape("question-answer", "question answer", mappers.question_answer, "prompt"),
    _shape("instruct", "instruction output", mappers.instruct, "prompt"),
    _shape(
        "preference",
        "chosen rejected",
        preference.preference,
        "prompt chosen rejected",
        preference.USES,
    ),
    # Plain strings for a base model; the shape above makes messages of them. Only by its name.
    _shape("plain-preference", "prompt chosen rejected", mappers.standard, "", preference.USES),
    _shape("prompt-completion", "prompt completion", mappers.standard, ""),
    _shape("conversations", "conversations", mappers.conversations, "messages"),
    _shape("messages", "messages", mappers.standard, ""),
    _shape("prompt-solution", "prompt solution", mappers.standard, ""),
    _shape(
        "labelled-text",
        "text label",
        mappers.labelled_text,
        "text label",
        labelled.USES,
    ),
    _shape("prompt", "prompt", mappers.standard, ""),
)
NAMES: tuple[str, ...] = tuple(shape.name for shape in SHAPES)


def recognise(columns: Iterable[str], *, where: str) -> Shape:
    """The shape of rows with these columns. Raises DataError listing the columns seen and the
    shapes known.
    """
    seen = set(columns)
    for shape in SHAPES:
        if shape.columns <= seen:
            return shape
    names = [name if name.isprintable() else repr(name) for name in sorted(seen)]
    known = "\n".join(f"  {shape.name}: {', '.join(sorted(shape.columns))}" for shape in SHAPES)
    raise DataError(
        f"{where}: the columns {', '.join(names) or '(none)'} fit no known shape"
        f"{_nearest(seen)}. Known are:\n{known}"
    )


def _nearest(columns: set[str]) -> str:
    """What a column that is none of a shape's was to be called, perhaps."""
    wanted = sorted({name for shape in SHAPES for name in shape.columns} - columns)
    for column in sorted(columns - {name for shape in SHAPES for name in shape.columns}):
        if close := difflib.get_close_matches(column, wanted, n=1, cutoff=0.75):
            return f" ({column!r} may be meant to be {close[0]!r})"
    return ""


def named(name: str) -> Shape:
    """The shape of this name. Raises DataError listing the names."""
    for shape in SHAPES:
        if shape.name == name:
            return shape
    raise DataError(f"shape={name!r} is unknown; the shapes are {', '.join(NAMES)}")


def check_use(use: str | None, shape: Shape | None, where: str) -> None:
    """Raises DataError for a use that is unknown, or that rows of this shape do not have."""
    if use is None:
        return
    if use not in get_args(Use):
        known = ", ".join(get_args(Use))
        raise DataError(f"{where}: use={use!r} is unknown; the uses are {known}")
    if shape is not None and use not in shape.uses:
        have = f"are read as {', '.join(shape.uses)}" if shape.uses else "are read in one way"
        raise DataError(f"{where}: use={use!r} does not fit, rows of shape {shape.name} {have}")
