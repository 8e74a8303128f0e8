"""What a sampling stage has drawn: `sampled.jsonl`, a line a prompt, added to batch by batch.

A batch is on disk, synced, before the next is begun. A kill leaves a torn line or a batch that is
not whole: opened again, the file is cut back to its last whole batch, and that batch is drawn anew
with the prompts it had, so it comes out the same where the sampler is bit-exact.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.checkpoint import Log
from align.files.disk import FolderError, whole

Line = dict[str, Any]


class Ledger:
    """rows: of the prompts in the order they are drawn in. batch: how many are drawn together."""

    def __init__(self, path: Path, rows: Sequence[int], prompts: Sequence[Any], batch: int) -> None:
        self.rows, self.batch = rows, batch
        whole, length = whole_lines(path)
        complete = len(whole) if len(whole) >= len(rows) else len(whole) // batch * batch
        self.lines = whole[:complete]
        self._check(path, prompts)
        self.log = Log(path)
        self.log.cut(length[complete])

    @property
    def batches(self) -> list[list[Line]]:
        """Those that are drawn."""
        return [self.lines[i : i + self.batch] for i in range(0, len(self.lines), self.batch)]

    def add(self, lines: Sequence[Line]) -> list[Line]:
        """Write a batch and wait until it is on disk; returns the lines as they will be read."""
        begun = self.log.length()
        self.log.write(lines)
        end = self.log.length()
        with self.log.path.open("rb") as file:
            file.seek(begun)
            added = [json.loads(line) for line in file.read(end - begun).splitlines()]
        self.lines += added
        return added

    def _check(self, path: Path, prompts: Sequence[Any]) -> None:
        """That each line is of the row, and the prompt, that it would be drawn for now."""
        for i, line in enumerate(self.lines):
            if i >= len(self.rows) or (line["row"], line["prompt"]) != (self.rows[i], prompts[i]):
                raise FolderError(
                    f"{path}, line {i + 1} was sampled for another prompt than the data has there "
                    "now: choose another folder with --out, or delete that one"
                )


def whole_lines(path: Path) -> tuple[list[Line], list[int]]:
    """The lines up to the first torn one, and how many bytes the first 0, 1, 2, … of them take."""
    lines: list[Line] = []
    ends = [0]
    for raw in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        try:
            line = json.loads(raw) if raw.endswith(b"\n") else None
        except ValueError:
            line = None
        if line is None:
            break
        lines.append(line)
        ends.append(ends[-1] + len(raw))
    return lines, ends


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSON-lines file, whole or not at all."""
    with whole(path) as file:
        for row in rows:
            text = json.dumps(row, ensure_ascii=False) + "\n"
            file.write(text.encode("utf-8", "replace"))
