"""Data sets read from a local file or the hub: one base with the common options, one short class
each.

A source is a frozen value: nothing is read before `rows()`. Every class maps through the table of
`shapes`, so `path="my.jsonl"` in place of the hub changes where the rows come from and nothing
else.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data import files, hub, shapes
from data.prompts import Style, check_style, dress
from data.rows import DataError, Row, RowError, dataset, show

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The options that all read data sets share.

    split: a split's name, a part of it in the notation of `datasets` (`train[:90%]`), or both.
    path: a local .jsonl or .parquet file in place of the hub. seed: shuffles the rows (None: the
    order of the file). limit: rows at most, after the shuffle. style, system: see `prompts`.
    complete: leave out rows with a null in any column, such as word problems without a worked
    completion, so that the rest can serve SFT.
    """

    id: str | None = None
    config: str | None = None
    path: str | None = None
    shape: str | None = None
    split: str = "train"
    limit: int | None = None
    seed: int | None = None
    style: Style = "chat"
    system: str | None = None
    complete: bool = False

    def __post_init__(self) -> None:
        check_style(self.style, self.system)
        if self.path is None and self.id is None:
            raise DataError(f"{type(self).__name__} needs path=, a .jsonl or .parquet file, or id=")
        if self.shape is not None:
            shapes.named(self.shape)
        if self.limit is not None and self.limit < 1:
            raise DataError(f"{self.name}: limit={self.limit} must be at least 1")

    @property
    def name(self) -> str:
        """Short name for logs: the data set's own, else the file's."""
        return self.id.split("/")[-1] if self.id else Path(self.path or "").stem

    def rows(self) -> Dataset:
        """The rows mapped to TRL's columns. Raises DataError naming the file or data set, and the
        row.
        """
        where, raw = self._read()
        shape = (
            shapes.named(self.shape) if self.shape else shapes.recognise(_columns(raw), where=where)
        )
        order = list(range(len(raw)))
        if self.seed is not None:
            random.Random(f"order {self.seed}").shuffle(order)
        kept: list[Row] = []
        left_out: list[int] = []
        for place in order:
            if self.limit is not None and len(kept) == self.limit:
                break
            mapped = _mapped(shape, raw[place], place, where)
            needed = mapped.keys() | set(shape.makes) if self.complete else shape.makes
            if any(mapped.get(column) is None for column in needed):
                left_out.append(place)
                continue
            kept.append(dress(mapped, style=self.style, system=self.system))
        if not kept:
            raise DataError(
                f"{where}: none of {len(raw)} rows of shape {shape.name} gives "
                f"{', '.join(shape.makes)}"
            )
        if left_out:
            log.warning(
                "%s: left out %d rows that give no %s (the first: row %d)",
                where,
                len(left_out),
                " or ".join(sorted(needed)),
                left_out[0],
            )
        return dataset(kept)

    def _read(self) -> tuple[str, list[Row]]:
        """Where the rows come from, in words, and the rows as they are there."""
        if self.path is not None:
            rows = files.cut(files.read(self.path), self.split)
            if not rows:
                raise DataError(f"{self.path}: split={self.split!r} selects no rows")
            return self.path, rows
        rows = hub.load(str(self.id), self.config, self.split)
        return f"{self.id} ({self.split})", rows


def _columns(rows: list[Row]) -> list[str]:
    """Those of the first row: a later row that lacks one is a bad row, not another shape."""
    return list(rows[0])


def _mapped(shape: shapes.Shape, row: Row, place: int, where: str) -> Row:
    """The mapped row. Raises RowError for a null column, DataError for a row of another make."""
    for column in sorted(shape.columns) if shape.makes else ():
        if row.get(column) is None:
            seen = "null" if column in row else "no such column in this row"
            raise RowError(
                row=place, column=column, expected=f"a value ({where}, {shape.name})", seen=seen
            )
    try:
        return shape.map(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kinds = ", ".join(f"{column}: {show(row.get(column))}" for column in sorted(shape.columns))
        raise DataError(
            f"{where}: row {place} is not of shape {shape.name}: {error}. It has {kinds}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Local(Table):
    """A local file, `path`; its shape is recognised from its columns."""


@dataclass(frozen=True, kw_only=True)
class Hub(Table):
    """Any data set of the hub, `id="owner/name"`, whose columns fit a known shape."""


@dataclass(frozen=True, kw_only=True)
class GSM8K(Table):
    """Grade-school word problems; 7,473 train, 1,319 test. The worked answer is the completion."""

    id: str | None = "openai/gsm8k"
    config: str | None = "main"
    shape: str | None = "question-answer"


@dataclass(frozen=True, kw_only=True)
class NuminaMathTIR(Table):
    """Competition mathematics; 72,441 train, 99 test. Rows without a boxed answer are left out."""

    id: str | None = "AI-MO/NuminaMath-TIR"
    shape: str | None = "numinamath"


@dataclass(frozen=True, kw_only=True)
class BespokeStratos(Table):
    """17k reasoning traces for SFT, their tags written as <think> and <answer>."""

    id: str | None = "bespokelabs/Bespoke-Stratos-17k"
    shape: str | None = "conversations"


@dataclass(frozen=True, kw_only=True)
class MATH500(Table):
    """500 problems of MATH for evaluation. Read only where you name it, never shipped."""

    id: str | None = "HuggingFaceH4/MATH-500"
    shape: str | None = "math"
    split: str = "test"


@dataclass(frozen=True, kw_only=True)
class UltraFeedback(Table):
    """Preference pairs on general instructions."""

    id: str | None = "trl-lib/ultrafeedback_binarized"
    shape: str | None = "preference"


@dataclass(frozen=True, kw_only=True)
class HHRLHF(Table):
    """Preference pairs of whole dialogues, helpful and harmless; the shared part is the prompt."""

    id: str | None = "Anthropic/hh-rlhf"
    shape: str | None = "preference"
