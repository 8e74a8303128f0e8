"""Is there room on the disk for checkpoints and the export, and may they be written?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from align.config import Training
from align.findings import Findings
from align.folder import FolderError
from align.preflight.subject import Subject
from align.preflight.values import rounds
from align.preflight.weights import Size

GIB = 2**30
NUMBER = 4  # bytes of a weight; AdamW keeps two moments of each


def check(subject: Subject, found: Findings, size: Size) -> None:
    if not isinstance(subject.config, Training):
        return
    config = subject.config
    at_once = _checkpoints(config, len(subject.rows))
    kept = at_once * 3 * NUMBER * size.trained
    export = NUMBER * size.whole
    there = standing(subject.out)
    free = shutil.disk_usage(there).free
    said = (
        f"up to {_gib(kept + export)} are written to {subject.out}: {at_once} checkpoints of "
        f"{_gib(3 * NUMBER * size.trained)} (one more than are kept, while it is written) and the "
        f"model of {_gib(export)}; {_gib(free)} are free there"
    )
    if kept + export > free:
        cure = "choose another disk with --out, or keep fewer: --checkpoints.keep 1"
        found.error("disk", said, cure)
    elif kept + export > 0.8 * free:
        found.warning("disk", said, "make room, or --checkpoints.keep 1")
    else:
        found.note("disk", said)


def check_writable(folder: Path) -> None:
    """Raises FolderError where the stage's folder cannot be made or written to."""
    there = standing(folder)
    if not there.is_dir():
        raise FolderError(f"{there} is a file: choose another folder with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FolderError(
            f"{folder} cannot be written: {there} is read-only for this user; choose another "
            "folder with --out"
        )


def standing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    absolute = folder.absolute()
    return next(each for each in (absolute, *absolute.parents) if each.exists())


def _checkpoints(config: Training, rows: int) -> int:
    """Most that are there at once. Without any, SIGTERM still writes one."""
    every, keep = config.checkpoints.every, config.checkpoints.keep
    written = rounds(config, rows) // every if every else 1
    return max(1, min(written, keep + 1))


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size > 0.1 * GIB else f"{size / 2**20:.1f} MiB"
