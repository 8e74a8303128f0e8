"""What an earlier stage of the same run wrote, as a data set: `@rejection`.

A recipe names the stage; the folder is known once there is a run: `placed` puts it in.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data.rows import DataError
from data.sources import Local
from data.table import Table

if TYPE_CHECKING:
    from datasets import Dataset

FILES = ("data.jsonl", "data.parquet")
Value = TypeVar("Value")
Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class FromStage:
    """The rows that the stage called `stage` wrote.

    limit: rows at most; seed: shuffles them (None: their own order).
    """

    stage: str
    limit: int | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """As a reference is written."""
        return f"@{self.stage}"

    def rows(self) -> Dataset:
        """Raises DataError: without a run there is nothing to read."""
        raise DataError(f"{self.name} is read in a run whose stage {self.stage!r} has written it")

    def at(self, run: Path) -> Local:
        """The rows in that run's folder. Raises DataError where they are not there yet."""
        return Local(path=str(self.file(run)), limit=self.limit, seed=self.seed)

    def file(self, run: Path) -> Path:
        """Raises DataError where the stage is not complete."""
        folder = run / self.stage
        found = [folder / name for name in FILES if (folder / name).is_file()]
        if found and (folder / "done.json").is_file():
            return found[0]
        raise DataError(f"stage {self.stage!r} has written no data in {folder} yet")


def from_stages(value: Any) -> list[FromStage]:
    """Every stage's output named in a configuration, however deep in mixtures."""
    return _within(value, FromStage)


def from_hub(value: Any) -> list[Table]:
    """Every source there that `rows()` would ask the hub for, or its cache."""
    return [one for one in _within(value, Table) if one.path is None]


def placed(value: Value, run: Path) -> Value:
    """The configuration with every `FromStage` replaced by the rows in that run's folder.

    Raises DataError where they are not there yet.
    """
    if isinstance(value, FromStage):
        return value.at(run)  # type: ignore[return-value]
    if not from_stages(value):
        return value
    if isinstance(value, tuple):
        return tuple(placed(part, run) for part in value)  # type: ignore[return-value]
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **{name: placed(part, run) for name, part in fields.items()})


def _within(value: Any, kind: type[Kind]) -> list[Kind]:
    if isinstance(value, kind):
        return [value]
    return [found for part in _parts(value) for found in _within(part, kind)]


def _parts(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return []
