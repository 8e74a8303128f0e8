"""Preferences made by rule: each problem's own worked answer against another problem's.

Both answers are well formed and only one belongs, so that preference stages can be tried without a
network or a judge.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from data.rows import DataError, Row, Source, dataset

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class RightWrong:
    """source: problems with completion and solution. rows_as: "pairs" gives prompt, chosen,
    rejected; "labelled" prompt, completion, label, one row right and one wrong of each problem.
    seed: which other problem's answer is taken.
    """

    source: Source
    rows_as: Literal["pairs", "labelled"] = "pairs"
    seed: int = 0

    @property
    def name(self) -> str:
        """The source's, with what was made of it."""
        return f"{self.source.name}-{self.rows_as}"

    def rows(self) -> Dataset:
        """Raises DataError where no two rows have different solutions."""
        rows = self.source.rows()
        found: list[Row] = []
        for index, row in enumerate(rows):
            wrong = self._other(rows, index)
            if self.rows_as == "pairs":
                found.append(
                    {"prompt": row["prompt"], "chosen": row["completion"], "rejected": wrong}
                )
                continue
            for completion, label in ((row["completion"], True), (wrong, False)):
                found.append({"prompt": row["prompt"], "completion": completion, "label": label})
        return dataset(found)

    def _other(self, rows: Any, index: int) -> Any:
        """The completion of a row drawn by lot whose solution is another."""
        draw = random.Random(f"wrong {self.seed} {index}")
        places = list(range(len(rows)))
        draw.shuffle(places)
        for place in places:
            if rows[place]["solution"] != rows[index]["solution"]:
                return rows[place]["completion"]
        raise DataError(f"{self.name}: all solutions are alike, so no answer is a wrong one")
