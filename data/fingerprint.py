"""What tells data apart: the contents of the files that a source names, and the rows themselves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data import files
from data.rows import Row
from data.table import Table


def of_files(config: Any) -> dict[str, str]:
    """The sha256 of every local file that a source anywhere in a configuration names, by path.

    Raises DataError where a file is missing.
    """
    found = [file for table in _tables(config) for file in files.find(str(table.path))]
    return {str(file): _file(file) for file in found}


def of_rows(rows: Iterable[Row]) -> str:
    """A hash of every value, in order."""
    digest = hashlib.sha256()
    for row in rows:
        text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=repr)
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _tables(value: Any) -> list[Table]:
    """The tables read from files in a configuration, however deep in mixtures."""
    if isinstance(value, Table):
        return [value] if value.path else []
    if isinstance(value, tuple):
        return [table for part in value for table in _tables(part)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, field.name) for field in dataclasses.fields(value))
        return [table for part in parts for table in _tables(part)]
    return []


def _file(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
