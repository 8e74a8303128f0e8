"""Checkpoints that are whole or absent, and the logs that stay in step with them.

A checkpoint is a folder `step-000012` that is written under another name, synced and renamed; its
manifest holds the size and sha256 of every file and how long the append-only logs were. Resuming
takes the newest folder whose files match its manifest and cuts the logs back to those lengths, so
that they have neither gap nor duplicate. Each process writes the pieces of the tensors that it
holds, to a folder that all machines see; any number of processes reads them. No random state is
kept, because every step seeds its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from align.pieces import Piece, PieceError, Pieces, write

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
Value = TypeVar("Value")


class CheckpointError(RuntimeError):
    """Checkpoints that cannot be resumed from; the message says which, why, and what to do."""


class Log:
    """An append-only JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # A sampled text may hold a lone surrogate, which UTF-8 has no bytes for.
        self._file.write(text.encode("utf-8", "replace"))
        self._file.flush()

    def rows(self) -> list[dict[str, Any]]:
        """What it holds."""
        with self.path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def length(self) -> int:
        """Bytes that are safely on disk."""
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
        self._together(lambda: self._begin(partial) if self._main else None)
        written = self._together(lambda: self._write(partial, pieces))
        files = {name: print_ for each in written for name, print_ in each.items()}
        manifest = {"step": step, "files": files, **about}
        self._together(lambda: self._finish(partial, final, manifest) if self._main else None)
        return final

    def newest(self) -> tuple[Pieces, dict[str, Any]] | None:
        """(tensors, manifest) of the newest whole checkpoint, None if there has been none.

        Raises CheckpointError if there are checkpoints and every one of them is damaged.
        """
        folder, manifest = self._together(lambda: self._newest() if self._main else None)[0]
        if folder is None:
            return None
        opened: list[Pieces] = []
        self._together(lambda: opened.append(_opened(folder, manifest)))
        return opened[0], manifest

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

    def _begin(self, partial: Path) -> None:
        self._drop_unfinished()
        partial.mkdir(parents=True)

    def _write(self, partial: Path, pieces: Mapping[str, Piece]) -> dict[str, Any]:
        """The fingerprint of this process's file, by its name; nothing where it has none."""
        if not pieces:
            return {}
        path = partial / state_file(self.processes.index)
        write(path, pieces)
        with path.open("rb") as file:
            _sync(file.fileno())
        return {path.name: _fingerprint(path)}

    def _finish(self, partial: Path, final: Path, manifest: Mapping[str, Any]) -> None:
        with (partial / MANIFEST).open("w") as file:
            json.dump(manifest, file)
            file.flush()
            _sync(file.fileno())
        if final.exists():  # renamed first: half removed, it would pass for a damaged checkpoint
            final.rename(partial.with_suffix(".replaced"))
        partial.rename(final)
        _sync_folder(self.folder)
        self._drop_old(final)
        self._drop_unfinished()

    def _drop_old(self, newest: Path) -> None:
        """Keep `newest` and those just before it; later ones were passed over as damaged."""
        folders = self._folders()
        end = folders.index(newest) + 1
        kept = folders[max(0, end - max(1, self.keep)) : end]
        for folder in folders:
            if folder not in kept:
                shutil.rmtree(folder)

    def _drop_unfinished(self) -> None:
        """What a kill left behind under a temporary name."""
        for folder in self.folder.glob(".step-*"):
            shutil.rmtree(folder)

    def _newest(self) -> tuple[Path | None, dict[str, Any]]:
        folders = self._folders()
        for folder in reversed(folders):
            problem = _damage(folder)
            if problem is None:
                return folder, json.loads((folder / MANIFEST).read_text())
            log.warning("passing over the checkpoint %s: %s", folder, problem)
        if folders:
            raise CheckpointError(
                f"every checkpoint in {self.folder} is damaged ({_damage(folders[-1])}); delete "
                "the stage's folder to start it again"
            )
        return None, {}

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=lambda path: (len(path.name), path.name))


def _opened(folder: Path, manifest: Mapping[str, Any]) -> Pieces:
    """The tensors of a checkpoint that is whole."""
    try:
        return Pieces([folder / name for name in manifest["files"]])
    except (SafetensorError, PieceError) as error:
        raise CheckpointError(
            f"{folder} is not a checkpoint of this version ({error}); delete the stage's folder to "
            "start it again"
        ) from error


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing is."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
        if _fingerprint(path) != expected:
            return f"{name} was altered (its sha256 does not match)"
    return None


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
