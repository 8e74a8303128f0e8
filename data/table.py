"""Tables read from files or the hub: the options that all such sources share.

A source is a frozen value: nothing is read before `rows()`. Reading goes in one line: files or hub,
shape by the columns, mapper, split, shuffle, use, style, limit.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from data import files, hub, labelled, shapes
from data.files import Item
from data.left_out import LeftOut, Unusable
from data.preference import paired
from data.prompts import Style, check_style, dress
from data.rows import DataError, Row, RowError, dataset, nth, show
from data.shapes import Use, check_use

if TYPE_CHECKING:
    from datasets import Dataset


class _Raw(NamedTuple):
    """A row as it was read, and where it stands."""

    where: str
    place: int
    row: Row


class _Joined(Sequence[_Raw]):
    """The rows of several tables, by name, one after another."""

    def __init__(self, tables: Mapping[str, Sequence[Row]]) -> None:
        self.tables = list(tables.items())
        self.ends = list(accumulate(len(rows) for rows in tables.values()))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, place: int) -> _Raw:  # type: ignore[override]
        table = bisect_right(self.ends, range(len(self))[place])
        name, rows = self.tables[table]
        own = place - (self.ends[table - 1] if table else 0)
        return _Raw(name, own, rows[own])


@dataclass(frozen=True, kw_only=True)
class Table:
    """The options that all read data sets share.

    split: a split's name, a part of it in the notation of `datasets` (`train[:90%]`), or both.
    path: in place of the hub a local .jsonl or .parquet file, a folder of them, or several joined
    by +, of one shape. seed: shuffles the rows (None: their own order). limit: rows at most, after
    the shuffle. style, system: see `prompts`. complete: leave out rows with a null in any column,
    such as word problems without a worked completion, so that the rest can serve SFT. use: what
    preference pairs and labelled text are read as, see `uses` and `labelled`.

    prefix, opening_words: of labelled text, see `labelled`. Its order mixes the labels and depends
    on the texts alone; texts are cut by split, then shuffled by seed, then paired.

    Public sets hold some rows of no use, such as pairs of two equal answers: what a shape's mapper
    finds unusable is left out, counted and logged by reason. Rows in TRL's own columns pass as they
    are, and `validate.check_rows` refuses the first bad one.
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
    use: Use | None = None
    prefix: str | None = None
    opening_words: int | None = None

    def __post_init__(self) -> None:
        check_style(self.style, self.system)
        if self.path is None and self.id is None:
            raise DataError(f"{type(self).__name__} needs path=, a .jsonl or .parquet file, or id=")
        self._check_options(shapes.named(self.shape) if self.shape else None)
        for name in ("limit", "opening_words"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise DataError(f"{self.name}: {name}={value} must be at least 1")
        if self.use in ("pairs", "kto") and self.prefix is not None and not self.prefix.strip():
            raise DataError(
                f"{self.name}: use={self.use!r} needs a prefix, as it is the whole prompt"
            )

    @property
    def name(self) -> str:
        """Short name for logs: the data set's own, else the file's or files'."""
        if self.id:
            return self.id.split("/")[-1]
        return "+".join(Path(each).stem for each in (self.path or "").split("+"))

    def rows(self) -> Dataset:
        """The rows mapped to TRL's columns. Raises DataError naming the file or data set, and the
        row.
        """
        where, shape, raw = self._read()
        self._check_options(shape)
        left_out = LeftOut()
        if shape.name == "labelled-text":
            found = self._labelled(where, shape, raw, left_out)
        else:
            # Places, not rows: of a large file these would not fit in memory.
            order = self._shuffled(files.cut(range(len(raw)), self.split))
            found = paired(self._mapped(shape, map(raw.__getitem__, order), left_out), self.use)
        dressed = (dress(row, style=self.style, system=self.system) for row in found)
        kept = dataset(islice(dressed, self.limit))
        if not len(kept):
            raise DataError(
                f"{where}: split={self.split!r} gives no rows, of {len(raw)} of shape {shape.name}"
                + (f"; left out: {left_out}" if left_out.first else "")
            )
        left_out.warn(where)
        return kept

    def _check_options(self, shape: shapes.Shape | None) -> None:
        check_use(self.use, shape, self.name)
        for name in ("prefix", "opening_words"):
            wanted = getattr(self, name) is not None
            if wanted and shape is not None and shape.name != "labelled-text":
                raise DataError(
                    f"{self.name}: {name}= is for labelled text, and these rows are of shape "
                    f"{shape.name}; leave it out"
                )
        if self.opening_words is not None and self.use not in (None, "openings"):
            raise DataError(
                f"{self.name}: opening_words= cuts openings, and use={self.use!r} reads whole "
                "texts; leave one of them out"
            )

    def _read(self) -> tuple[str, shapes.Shape, _Joined]:
        """Where the rows come from, in words, their shape, and the rows as they are there."""
        if self.path is None:
            where = f"{self.id} ({self.split})"
            tables = {where: hub.load(str(self.id), self.config, files.split_name(self.split))}
        else:
            where = self.path
            tables = {str(file): files.opened(file) for file in files.find(self.path)}
        found = {name: self._recognised(rows, name) for name, rows in tables.items()}
        if len(set(found.values())) > 1:
            kinds = ", ".join(f"{name}: {shape.name}" for name, shape in found.items())
            raise DataError(f"{where}: files of one shape are read together, these differ: {kinds}")
        return where, next(iter(found.values())), _Joined(tables)

    def _recognised(self, rows: Sequence[Row], where: str) -> shapes.Shape:
        """By the columns of the first row: a later one that lacks one is a bad row, not another
        shape.
        """
        return shapes.named(self.shape) if self.shape else shapes.recognise(rows[0], where=where)

    def _shuffled(self, rows: Sequence[Item]) -> Sequence[Item]:
        if self.seed is None:
            return rows
        shuffled: Any = array("q", rows) if isinstance(rows, range) else list(rows)
        random.Random(f"order {self.seed}").shuffle(shuffled)
        return shuffled

    def _mapped(self, shape: shapes.Shape, raw: Iterable[_Raw], left_out: LeftOut) -> Iterator[Row]:
        for each in raw:
            try:
                mapped = _map(shape, each)
            except Unusable as reason:
                left_out.add(str(reason), f"the {nth(each.place)} of {each.where}")
                continue
            needed = mapped.keys() | set(shape.makes) if self.complete else shape.makes
            if lacking := [column for column in sorted(needed) if mapped.get(column) is None]:
                left_out.add(
                    f"without {' and '.join(lacking)}", f"the {nth(each.place)} of {each.where}"
                )
                continue
            yield mapped

    def _labelled(
        self, where: str, shape: shapes.Shape, raw: _Joined, left_out: LeftOut
    ) -> Iterator[Row]:
        prefix = (labelled.PREFIX if self.prefix is None else self.prefix).strip()
        texts = labelled.mixed(list(self._mapped(shape, raw, left_out)), left_out)
        texts = self._shuffled(files.cut(texts, self.split))
        if self.use == "pairs":
            return labelled.pairs(texts, where=where, prefix=prefix, left_out=left_out)
        if self.use == "kto":
            return labelled.unpaired(texts, prefix=prefix)
        words = self.opening_words or labelled.OPENING_WORDS
        return labelled.openings(texts, prefix=prefix, words=words, left_out=left_out)


def _map(shape: shapes.Shape, raw: _Raw) -> Row:
    """The mapped row. Raises Unusable, RowError for a null column, DataError for a row of another
    make.
    """
    where, place, row = raw
    for column in sorted(shape.columns) if shape.makes else ():
        if row.get(column) is None:
            seen = "null" if column in row else "no such column in this row"
            raise RowError(
                row=place, column=column, expected=f"a value ({where}, {shape.name})", seen=seen
            )
    try:
        return shape.map(row)
    except Unusable:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        kinds = ", ".join(f"{column}: {show(row.get(column))}" for column in sorted(shape.columns))
        raise DataError(
            f"{where}: the {nth(place)} is not of shape {shape.name}: {error}. It has {kinds}"
        ) from error
