"""Local files, JSON Lines and Parquet, one or several, with errors that name the file and the line.

JSON Lines is read line by line (`jsonl`) rather than by a table loader: those report a broken line
as a byte offset in a block, or unify columns silently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from data.jsonl import Lines
from data.rows import DataError, Row

SUFFIXES = (".jsonl", ".parquet")
Item = TypeVar("Item")
_SLICE = re.compile(r"(?P<name>\w*)\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\]")
_SIDE = re.compile(r"(?:^|[^a-z])(train|test|valid|validation|val|dev|eval)(?=[^a-z]|$)")


def find(path: str) -> list[Path]:
    """The files that a path names: one file, those of a folder, or several of either joined by +.

    Raises DataError for what does not exist or is named twice, a folder without data, and one that
    holds several splits, which would train on what is held out.
    """
    whole = Path(path).expanduser()
    if whole.is_file():
        return [whole]
    if whole.is_dir():
        return _in_folder(whole)
    if "+" in path:
        found = [file for part in path.split("+") for file in find(part)]
        for place, file in enumerate(found):
            if file in found[:place]:
                raise DataError(f"{path} names {file} twice; name each file once")
        return found
    raise _missing(whole)


def in_folder(folder: Path) -> list[Path]:
    """The data files of a folder, by name; hidden ones and folders inside are not looked at."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
    )


def _in_folder(folder: Path) -> list[Path]:
    found = in_folder(folder)
    if not found:
        raise DataError(f"the folder {folder} holds no {' or '.join(SUFFIXES)} file")
    sides = {match and match[1] for match in (_SIDE.search(each.stem.lower()) for each in found)}
    if len(sides) > 1:
        raise DataError(
            f"the folder {folder} holds files of several splits, which are not read as one: name "
            f"the file (of {', '.join(each.name for each in found)})"
        )
    return found


def read(path: str | Path) -> list[Row]:
    """All rows of a .jsonl or .parquet file. Raises DataError as `opened` does."""
    return list(opened(path))


def opened(path: str | Path) -> Sequence[Row]:
    """All rows of a .jsonl or .parquet file; those of a .jsonl are read when they are asked for.

    Raises DataError naming the file, and the line where there is one.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise _missing(file)
    match file.suffix.lower():
        case ".jsonl":
            rows: Sequence[Row] = Lines(file)
        case ".parquet":
            rows = _parquet(file)
        case other:
            raise DataError(
                f"{file} ends in {other!r}; {' and '.join(SUFFIXES)} files are read"
                + _conversion(file, other)
            )
    if not rows:
        raise DataError(f"{file} holds no rows")
    return rows


def _conversion(file: Path, suffix: str) -> str:
    """What makes a file that is read of one that is not."""
    if suffix == ".json":
        return f": jq -c '.[]' {file} > {file.with_suffix('.jsonl')}"
    if suffix in (".csv", ".tsv"):
        sign = ", sep='\\t'" if suffix == ".tsv" else ""
        into = f"to_parquet('{file.with_suffix('.parquet')}')"
        return f": python -c \"import pandas; pandas.read_csv('{file}'{sign}).{into}\""
    return ""


def cut(rows: Sequence[Item], split: str) -> Sequence[Item]:
    """The part of all rows that `split` names: `train[:90%]`, `[100:]`; a bare name means all
    rows.

    The notation is that of `datasets`, so a source reads the same from a file and from the hub.
    """
    if "[" not in split:
        return rows
    found = _slice(split)
    return rows[slice(*(_position(found[end], len(rows)) for end in ("start", "stop")))]


def _missing(file: Path) -> DataError:
    return DataError(
        f"no file {file}; give the path of a {' or '.join(SUFFIXES)} file, as in "
        "--data my/rows.jsonl, of a folder of them, or of several joined by +"
    )


def split_name(split: str) -> str:
    """The name before the brackets; `train` where there is none."""
    return (_slice(split)["name"] or "train") if "[" in split else split


def _slice(split: str) -> re.Match[str]:
    found = _SLICE.fullmatch(split)
    if found is None:
        raise DataError(
            f"split={split!r} is not understood; write it like train[:90%] or train[100:]"
        )
    return found


def _position(text: str | None, count: int) -> int | None:
    if text is None:
        return None
    return round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)


def _parquet(file: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error
