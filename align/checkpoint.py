"""Checkpoints that are whole or absent, and the logs that stay in step with them.

A checkpoint is a folder `step-000012` that is written under another name, synced and renamed; its
manifest holds the size and sha256 of every file (`intact`), how long the append-only logs were and
what it is a checkpoint of. Resuming takes the folder of the highest step whose files match its
manifest and cuts the logs back to those lengths, so that they have neither gap nor duplicate. What
cannot be written, on a full disk say, is removed again, and the former checkpoint stays. Each
process writes the pieces of the tensors that it holds, to a folder that all machines see; any
number of processes reads them. No random state is kept, because every step seeds its own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.filesize import decimal
from safetensors import SafetensorError

from align.files.disk import drop, existing, writing
from align.files.intact import DamagedError, fingerprint, opened, seal
from align.files.pieces import Piece, PieceError, Pieces, write
from align.terminal.again import again

log = logging.getLogger(__name__)
REPLACED = ".replaced"
NAMED = re.compile(r"step-\d+")
Value = TypeVar("Value")


class CheckpointError(RuntimeError):
    """Checkpoints that cannot be resumed from; the message says which, why, and what to do."""


class Log:
    """An append-only JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All of them, or none where there is no room: then it raises FolderError."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # A sampled text may hold a lone surrogate, which UTF-8 has no bytes for.
        left = memoryview(text.encode("utf-8", "replace"))
        begun = self._file.tell()
        with writing(self.path.parent, needed=len(left)):
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                self._file.truncate(begun)
                self._file.seek(begun)
                raise

    def rows(self) -> list[dict[str, Any]]:
        """What it holds. Raises CheckpointError for a line that is none of JSON's."""
        found = []
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                found.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise CheckpointError(
                    f"{self.path}, line {number} cannot be read ({error}): it was changed by hand; "
                    "start again in another --out"
                ) from error
        return found

    def length(self) -> int:
        """Bytes that are safely on disk."""
        with writing(self.path.parent):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, length: int) -> None:
        """Forget what was written after `length` bytes."""
        if self._file.tell() < length:
            raise CheckpointError(
                f"{self.path} is shorter than the checkpoint remembers ({self._file.tell()} of "
                f"{length} bytes): it was changed by hand; start again in another --out"
            )
        self._file.truncate(length)
        self._file.seek(length)


def _alone(items: list[Any]) -> list[Any]:
    return items


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Those that save and load together. gathered: every process's items, in their order."""

    index: int = 0
    gathered: Callable[[list[Any]], list[Any]] = _alone


def state_file(index: int) -> str:
    """What that process writes."""
    return f"state-{index}.safetensors"


class Checkpoints:
    """The folder of one stage's checkpoints. All processes call each method together."""

    def __init__(self, folder: Path, *, keep: int, processes: Processes | None = None) -> None:
        self.folder = folder
        self.keep = keep
        self.processes = processes or Processes()
        self._main = self.processes.index == 0

    def save(self, step: int, pieces: Mapping[str, Piece], about: Mapping[str, Any]) -> Path:
        """Write this process's pieces and the main one's `about` (JSON), then drop old ones.

        Raises CheckpointError on all processes for what went wrong on one.
        """
        final = self.folder / f"step-{step:06d}"
        partial = self.folder / f".step-{step:06d}.partial"
        sizes = [sum(piece.tensor.nbytes for piece in pieces.values())]
        try:
            sizes = self._together(lambda: self._begin(partial, sizes[0]))
            written = self._together(lambda: self._write(partial, pieces))
            files = {name: print_ for each in written for name, print_ in each.items()}
            manifest = {"step": step, "files": files, **about}
            self._together(lambda: self._finish(partial, final, manifest) if self._main else None)
        except CheckpointError as error:
            # Before anyone looks how much room there is.
            left = self._together(lambda: self._give_up() if self._main else "")[0]
            raise CheckpointError(self._unwritten(step, error, sum(sizes), left)) from error
        return final

    def newest(
        self, differs: Callable[[Mapping[str, Any]], Sequence[str]] = lambda manifest: ()
    ) -> tuple[Pieces, dict[str, Any]] | None:
        """(tensors, manifest) of the newest whole checkpoint, None if there has been none.

        differs: in what a manifest is another run's. Raises CheckpointError for such a one, and if
        there are checkpoints and every one of them is damaged.
        """
        folder, manifest = self._together(lambda: self._newest(differs) if self._main else None)[0]
        if folder is None:
            return None
        found: list[Pieces] = []
        self._together(lambda: found.append(_pieces(folder, manifest)))
        return found[0], manifest

    def _together(self, work: Callable[[], Value]) -> list[Value]:
        """What each process's work returned; what one of them failed at is raised on all."""
        try:
            answer: tuple[Value | None, str] = (work(), "")
        except (OSError, SafetensorError, PieceError, CheckpointError) as error:
            answer = (None, str(error) or type(error).__name__)
        answers = self.processes.gathered([answer])
        for _, problem in answers:
            if problem:
                raise CheckpointError(problem)
        return [value for value, _ in answers]

    def _begin(self, partial: Path, size: int) -> int:
        """Make the folder; returns `size`, the bytes that this process will write."""
        if self._main:
            self._clear()
            partial.mkdir(parents=True)
        return size

    def _write(self, partial: Path, pieces: Mapping[str, Piece]) -> dict[str, Any]:
        """The fingerprint of this process's file, by its name; nothing where it has none."""
        if not pieces:
            return {}
        path = partial / state_file(self.processes.index)
        write(path, pieces)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return {path.name: fingerprint(path)}

    def _finish(self, partial: Path, final: Path, manifest: Mapping[str, Any]) -> None:
        seal(partial, manifest)
        if final.exists():  # renamed first: half removed, it would pass for a damaged checkpoint
            final.rename(partial.with_suffix(REPLACED))
        partial.rename(final)
        _sync_folder(self.folder)
        self._drop_old(final)
        self._clear()

    def _give_up(self) -> str:
        """Free what was half written; returns in words what there is to go on from."""
        self._clear()
        folders = self._folders()
        return folders[-1].name if folders else "the start"

    def _unwritten(self, step: int, error: CheckpointError, needed: int, left: str) -> str:
        free = shutil.disk_usage(existing(self.folder)).free
        return (
            f"the checkpoint of step {step} could not be written to {self.folder} ({error}): "
            f"{decimal(free)} free, {decimal(needed)} needed. Once it can be written, {again()}; "
            f"it goes on from {left}"
        )

    def _drop_old(self, newest: Path) -> None:
        """Keep `newest` and those just before it; later ones were passed over as damaged."""
        folders = self._folders()
        end = folders.index(newest) + 1
        kept = folders[max(0, end - max(1, self.keep)) : end]
        for folder in folders:
            if folder not in kept:
                shutil.rmtree(folder)

    def _clear(self) -> None:
        """What a kill or a full disk left under a temporary name, but for a checkpoint that was
        about to be replaced: that one is whole.
        """
        for folder in self.folder.glob(f".step-*{REPLACED}"):
            final = self.folder / folder.name[1:].removesuffix(REPLACED)
            if not final.exists():
                folder.rename(final)
        for folder in self.folder.glob(".step-*"):
            drop(folder)

    def _newest(
        self, differs: Callable[[Mapping[str, Any]], Sequence[str]]
    ) -> tuple[Path | None, dict[str, Any]]:
        self._clear()
        return newest_whole(self.folder, differs)

    def _folders(self) -> list[Path]:
        return stored(self.folder)


def newest_whole(
    folder: Path, differs: Callable[[Mapping[str, Any]], Sequence[str]]
) -> tuple[Path | None, dict[str, Any]]:
    """The newest checkpoint in a folder of them whose files are as they were written, and its
    manifest; nothing is changed. differs: see `Checkpoints.newest`. Raises CheckpointError.
    """
    damaged: list[tuple[Path, str]] = []
    for one in reversed(stored(folder)):
        try:
            manifest = opened(one)
        except DamagedError as error:
            damaged.append((one, str(error)))
            continue
        for other, problem in damaged:
            log.warning(
                "passing over the damaged checkpoint %s: %s; going on from %s (delete the "
                "damaged one at will)",
                other,
                problem,
                one.name,
            )
        if found := differs(manifest):
            raise CheckpointError(
                f"{one} is a checkpoint of another run ({'; '.join(found)}): delete it, and "
                "--resume goes on from the one before it, or from the start"
            )
        return one, manifest
    if damaged:
        said = "; ".join(f"{one.name}: {problem}" for one, problem in damaged)
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged ({said}); delete the stage's folder to start "
            "it again"
        )
    return None, {}


def stored(folder: Path) -> list[Path]:
    """The checkpoints in a stage's folder of them, whole or not, by their step."""
    found = [path for path in folder.glob("step-*") if NAMED.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _pieces(folder: Path, manifest: Mapping[str, Any]) -> Pieces:
    """The tensors of a checkpoint that is whole."""
    try:
        return Pieces([folder / name for name in manifest["files"]])
    except (SafetensorError, PieceError) as error:
        raise CheckpointError(
            f"{folder} is not a checkpoint of this version ({error}); delete the stage's folder to "
            "start it again"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
