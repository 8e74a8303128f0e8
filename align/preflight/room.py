"""Is there room on the disk for checkpoints and the export, and may they be written?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from align.checkpoint import step_of, stored
from align.config import Training
from align.files.disk import FolderError, existing, unwritable
from align.preflight.subject import Subject
from align.preflight.values import rounds
from align.preflight.weights import Size
from align.terminal.findings import Findings
from align.terminal.sizes import gib

LONGEST = 255  # bytes of a file's name, on every disk in use
NUMBER = 4  # bytes of a weight; AdamW keeps two moments of each


def check(subject: Subject, found: Findings, size: Size) -> None:
    if not isinstance(subject.config, Training):
        return
    config = subject.config
    stage = subject.out / config.name
    have = stored(stage / "checkpoints")
    more = _more(config, len(subject.rows), have)
    kept = more * 3 * NUMBER * size.trained
    export = NUMBER * size.whole
    # What a kill left half written is removed before anything is written.
    free = shutil.disk_usage(existing(subject.out)).free + _halves(stage)
    said = (
        f"up to {gib(kept + export)} are written to {subject.out}: {more} "
        f"{'more ' if have else ''}checkpoints of {gib(3 * NUMBER * size.trained)} (one more than "
        f"are kept, while it is written) and the model of {gib(export)}; {gib(free)} are free there"
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
    too_long = max(folder.absolute().parts, key=lambda name: len(os.fsencode(name)))
    if len(os.fsencode(too_long)) > LONGEST:
        raise FolderError(f"{too_long[:40]}… is longer than the {LONGEST} bytes that a name may "
                          "have: choose another folder with --out")  # fmt: skip
    there = existing(folder)
    if not there.is_dir():
        raise FolderError(f"{there} is a file: choose another folder with --out")
    if (why := unwritable(there)) is not None:
        raise FolderError(
            f"{folder} cannot be written: {there} takes no file ({why}); choose another folder "
            "with --out"
        )


def _more(config: Training, rows: int, have: Sequence[Path]) -> int:
    """Checkpoints that come to be there at once beside those that a run to be resumed has left.
    Of the last step there is none. Without any, SIGTERM still writes one.
    """
    every, keep = config.checkpoints.every, config.checkpoints.keep
    after = step_of(have[-1]) if have else 0
    to_come = (rounds(config, rows) - 1) // every - after // every if every else 1
    if have and to_come < 1:
        return 0
    return max(1, min(to_come, keep + 1 - len(have)))


def _halves(stage: Path) -> int:
    """Bytes of what is under a temporary name."""
    halves = [stage / ".model.partial", *(stage / "checkpoints").glob(".step-*.partial")]
    files = [file for half in halves for file in half.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
