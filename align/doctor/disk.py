"""Room on the disks that a run writes to, and whether it may write there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from align.doctor.asked import Asked
from align.files.disk import existing, unwritable
from align.terminal.findings import Findings
from align.terminal.sizes import GIB, gib

LEAST, LITTLE = 1 * GIB, 20 * GIB  # a run folder: tiny models; 0.5 billion parameters in full
LITTLE_CACHE = 5 * GIB
LITTLE_TEMPORARY = 1 * GIB


def check_disk(asked: Asked, found: Findings) -> None:
    """The run folder, the hub's cache, the folder for temporary files."""
    folder = existing(asked.folder)
    if _writable("run folder", folder, found, cure="--out FOLDER, where you may write"):
        free = shutil.disk_usage(folder).free
        said = f"run folder: {gib(free)} free in {folder.resolve()}"
        clear = f"du -xh --max-depth=2 {folder} | sort -h | tail; or --out on another disk"
        if free < LEAST:
            found.error("disk", said, clear)
        elif free < LITTLE:
            found.warning("disk", f"{said}: little for checkpoints", clear)
        else:
            found.note("disk", said)
        _inodes(folder, found)
    _beside("the hub's cache", cache(), LITTLE_CACHE, "export HF_HOME=FOLDER", found)
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    _beside("temporary files", temporary, LITTLE_TEMPORARY, "export TMPDIR=FOLDER", found)


def cache() -> Path:
    """Where huggingface_hub keeps models, by its own rules."""
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{general}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def _beside(what: str, folder: Path, little: int, cure: str, found: Findings) -> None:
    folder = existing(folder)
    if not _writable(what, folder, found, cure=cure):
        return
    free = shutil.disk_usage(folder).free
    said = f"{what}: {gib(free)} free in {folder}"
    if free < little:
        found.warning("disk", said, f"{cure} on another disk")
    else:
        found.note("disk", said)


def _writable(what: str, folder: Path, found: Findings, *, cure: str) -> bool:
    why = unwritable(folder)
    if why is not None:
        found.error("disk", f"{what}: cannot write to {folder}: {why}", cure)
    return why is None


def _inodes(folder: Path, found: Findings) -> None:
    files = os.statvfs(folder)
    if files.f_files and files.f_favail < 1000:
        said = f"run folder: {files.f_favail} more files fit on the disk of {folder}"
        found.error("disk", said, f"du -x --inodes --max-depth=2 {folder} | sort -n | tail")
