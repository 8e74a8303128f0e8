"""Several sources in fixed shares, interleaved evenly and deterministically.

At every place the source that is furthest behind its share gives the next row, so any stretch of
the mixture, not just the whole, holds the shares as closely as whole rows allow (a draw by lot
would drift by the square root of its length).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.rows import DataError, Row, Source, dataset

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Rows of several sources; the columns are united, null where a source has none.

    sources: (share, source) pairs, shares of any positive scale. size: rows (None: as many as there
    are before a source runs out). repeat: a source that runs out starts again, in a new order.
    seed: the order within each source (None: as it gives them). origin: name of a column that tells
    each row's source (None: no such column).
    """

    sources: tuple[tuple[float, Source], ...]
    size: int | None = None
    seed: int | None = 0
    repeat: bool = False
    origin: str | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise DataError("a mixture needs at least one (share, source)")
        for share, source in self.sources:
            if not share > 0:
                raise DataError(
                    f"mixture: the share of {source.name} is {share}; shares are positive numbers"
                )
        if self.size is not None and self.size < 1:
            raise DataError(f"mixture: size={self.size} must be at least 1")
        if self.repeat and self.size is None:
            raise DataError("mixture: repeat=True never ends without a size=")

    @property
    def name(self) -> str:
        """The sources' names, joined."""
        return "+".join(source.name for _, source in self.sources)

    def rows(self) -> Dataset:
        """The mixed rows. Raises DataError where a source runs out before `size`, repeat off."""
        tables = [source.rows() for _, source in self.sources]
        orders = [self._order(place, 0, len(table)) for place, table in enumerate(tables)]
        total = sum(share for share, _ in self.sources)
        taken = [0] * len(tables)
        mixed: list[Row] = []
        while self.size is None or len(mixed) < self.size:
            # The one furthest behind what its share of one row more would be; the first of equals.
            behind = [
                share / total * (len(mixed) + 1) - taken[i]
                for i, (share, _) in enumerate(self.sources)
            ]
            chosen = behind.index(max(behind))
            turn, position = divmod(taken[chosen], len(tables[chosen]))
            if position == 0 and turn:
                if self.size is None:
                    break
                self._may_repeat(chosen, len(tables[chosen]), len(mixed))
                orders[chosen] = self._order(chosen, turn, len(tables[chosen]))
            row = tables[chosen][orders[chosen][position]]
            mixed.append(row | {self.origin: self.sources[chosen][1].name} if self.origin else row)
            taken[chosen] += 1
        return dataset(mixed)

    def _order(self, place: int, turn: int, count: int) -> list[int]:
        order = list(range(count))
        if self.seed is not None:
            random.Random(f"mixture {self.seed} {place} {turn}").shuffle(order)
        return order

    def _may_repeat(self, place: int, count: int, reached: int) -> None:
        if not self.repeat:
            raise DataError(
                f"mixture: {self.sources[place][1].name} has {count} rows, used up after {reached} "
                f"of {self.size}; lower size or its share, or set repeat=True"
            )
