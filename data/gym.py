"""reasoning-gym: over a hundred families of problems made by rule, no network needed.

Problems are drawn one by one and kept on the side of train and test that the hash of their text
gives, so the two are disjoint for every seed and size, which reasoning-gym's own seeds do not
promise.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.equations import plain_number
from data.prompts import Style, check_style, dress
from data.rows import DataError, Row, dataset, user
from data.split import TEST_ONE_IN, check_side, side

if TYPE_CHECKING:
    from datasets import Dataset

# Drawn for one kept, at most, beyond what the split itself leaves out.
PATIENCE = 10


@dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """Problems of one reasoning-gym task, none twice.

    task: such as basic_arithmetic, chain_sum, gcd. params: settings of the task, (("min_terms", 2),
    …). Columns: prompt, solution, task, metadata (JSON text, as the package's own scorers want it,
    for a reward that calls them).
    """

    task: str = "basic_arithmetic"
    split: str = "train"
    size: int = 1000
    seed: int = 0
    params: tuple[tuple[str, Any], ...] = ()
    style: Style = "chat"
    system: str | None = None

    def __post_init__(self) -> None:
        check_style(self.style, self.system)
        check_side(self.split, self.name)
        if self.size < 1:
            raise DataError(f"{self.name}: size={self.size} must be at least 1")

    @property
    def name(self) -> str:
        """`reasoning-gym:task`."""
        return f"reasoning-gym:{self.task}"

    def rows(self) -> Dataset:
        """`size` rows. Raises DataError for an unknown task or setting, or where the task repeats
        itself too soon.
        """
        return dataset(dress(row, style=self.style, system=self.system) for row in self._rows())

    def _rows(self) -> Iterator[Row]:
        seen: set[str] = set()
        for entry in self._entries(self.size * TEST_ONE_IN * PATIENCE):
            question = entry["question"].strip()
            if side(question) != self.split or question in seen or entry["answer"] is None:
                continue
            seen.add(question)
            yield {
                "prompt": user(question),
                "solution": plain_number(str(entry["answer"])),
                "task": self.task,
                "metadata": json.dumps(entry["metadata"], default=str),
            }
            if len(seen) == self.size:
                return
        raise DataError(
            f"{self.name}: only {len(seen)} different {self.split} problems found, {self.size} "
            "wanted; lower size or widen the task through params"
        )

    def _entries(self, count: int) -> Iterator[dict[str, Any]]:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if self.task not in DATASETS:
            close = difflib.get_close_matches(self.task, DATASETS, n=3)
            hint = (
                f"did you mean {', '.join(close)}?"
                if close
                else f"there are {', '.join(sorted(DATASETS))}"
            )
            raise DataError(f"reasoning-gym has no task {self.task!r}; {hint}")
        try:
            made = reasoning_gym.create_dataset(
                self.task, size=count, seed=self.seed, **dict(self.params)
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise DataError(
                f"{self.name}: params={dict(self.params)} are refused: {error}"
            ) from error
        # Indexing makes a problem from (seed, index), so only what is looked at costs time.
        return (made[index] for index in range(count))
