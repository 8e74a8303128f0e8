"""JSON Lines held to the letter: one whole JSON object a line, in UTF-8, and nothing that Python
reads into it besides.

Python's reader keeps the last of two equal keys, takes NaN and infinity, and half of a surrogate
pair, which no tokenizer takes; here each is an error that names the line. Memory is bounded: a line
by `MAX_LINE`, and of `Lines`, a file of any size, eight bytes a row are held.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from data.rows import DataError, Row

MAX_LINE = 64 << 20  # bytes; a data set whose row is longer is a file without line ends
SHOWN = 256 << 20  # bytes; reading more than this shows how far it is, on a terminal
# How files begin that only their name makes JSON Lines, and what to type.
_NOT_TEXT = {
    b"\x1f\x8b": "compressed with gzip: gunzip -S .jsonl it, or read it through zcat",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard: unzstd it",
    b"BZh": "compressed with bzip2: bunzip2 it",
    b"PK\x03\x04": "a zip archive: unzip it",
    b"PAR1": "a Parquet file: name it .parquet",
    b"\xff\xfe\0\0": "UTF-32: save it as UTF-8, as with iconv -f UTF-32 -t UTF-8",
    b"<!DO": "an HTML page, such as a site's answer: download the file itself",
    b"<htm": "an HTML page, such as a site's answer: download the file itself",
    b"vers": "a pointer of git-lfs: git lfs pull",
    b"\xff\xfe": "UTF-16: save it as UTF-8, as with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8, as with iconv -f UTF-16 -t UTF-8",
}
_WHOLE = " (a whole JSON array becomes lines with jq -c '.[]')"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Lines(Sequence[Row]):
    """The rows of a file, each read from the disk when it is asked for.

    Making it reads the whole file once and checks every line. Raises DataError for the first that
    is not as it should be.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.starts = array("q", (start for start, _ in scan(file)))
        self.count = len(self.starts)
        self.starts.append(file.stat().st_size)
        self.lines = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.lines)

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        place = range(self.count)[place]
        start = self.starts[place]
        try:
            return json.loads(os.pread(self.lines, self.starts[place + 1] - start, start))
        except ValueError as error:  # every line has been read without one
            raise DataError(f"{self.file} was changed while it was read; start again") from error


def scan(file: Path) -> Iterator[tuple[int, Row]]:
    """Each row with the byte at which it starts; blank lines are none. Raises DataError naming the
    file and the line.
    """
    try:
        with file.open("rb") as lines, _shown(file) as show:
            _check_text(file, lines.read(4))
            lines.seek(0)
            start = index = 0
            while raw := lines.readline(MAX_LINE + 1):
                index += 1
                where = f"{file}, line {index}"
                # A byte-order mark is no part of the first row.
                mark = 3 if index == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
                row = _row(raw[mark:], where)
                if row is not None:
                    yield start + mark, row
                start += len(raw)
                show(start)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


def _check_text(file: Path, opening: bytes) -> None:
    for magic, what in _NOT_TEXT.items():
        if opening.startswith(magic):
            raise DataError(f"{file} is not JSON Lines but {what}")


def _row(raw: bytes, where: str) -> Row | None:
    """The object of a line, None for a blank one."""
    if len(raw) > MAX_LINE:
        raise DataError(
            f"{where}: longer than {MAX_LINE >> 20} MiB, the most that is read as one row; each "
            f"line must be one JSON object{_WHOLE}"
        )
    try:
        text = raw.decode("utf-8").strip(" \t\r\n")  # all that is white space to JSON
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
        ) from error
    if not text:
        return None
    if odd := [sign for sign in (text[0], text[-1]) if sign.isspace()]:
        raise DataError(
            f"{where}: U+{ord(odd[0]):04X} before or after the row, white space that is none to "
            "JSON; delete it"
        )
    try:
        row = _decoder.decode(text)
        if _SURROGATE.search(raw):
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except _NotJsonError as error:
        raise DataError(f"{where}: {error}") from None
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: half of a surrogate pair (\\ud800 to \\udfff alone) is no text; write the "
            "character itself, or leave it out"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: not JSON ({error}); each line must be one whole JSON object{_guess(raw)}"
        ) from error
    if not isinstance(row, dict):
        cure = _WHOLE if isinstance(row, list) else "; mend or delete the line"
        raise DataError(f"{where}: a JSON object is expected, here is a {type(row).__name__}{cure}")
    return row


def _guess(raw: bytes) -> str:
    """What a line may be that is not JSON, in brackets, or nothing."""
    if b"\0" in raw:
        return (
            " (it has bytes of zero: text in UTF-16, which iconv -f UTF-16 -t UTF-8 makes UTF-8, "
            "or a file that was never written to its end)"
        )
    if raw.strip() == b"[":
        return _WHOLE
    return "" if raw.endswith(b"\n") else " (the last line: is the file cut short?)"


class _NotJsonError(ValueError):
    """What Python's reader would let pass."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _NotJsonError(
            f"the key {twice!r} stands twice in one object, and only one value can be meant"
        )
    return found


def _constant(name: str) -> float:
    raise _NotJsonError(f"{name} is no JSON number; write null, or leave the row out")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _NotJsonError(f"the number {digits[:40]} is too large to be held")
    return value


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


@contextmanager
def _shown(file: Path) -> Iterator[Callable[[int], None]]:
    """Takes how many bytes are read; a large file's are shown on the terminal of a run's first
    process.
    """
    size = file.stat().st_size
    if size <= SHOWN or not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("reading {task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file.name, total=size)
        shown = 0

        def show(done: int) -> None:
            nonlocal shown
            if done - shown >= size // 200:
                bar.update(task, completed=(shown := done))

        yield show
