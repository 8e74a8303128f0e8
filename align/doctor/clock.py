"""Whether the clock can be right: files of the project were not written in the future."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from align.doctor.asked import HOME, Asked
from align.terminal.findings import Findings

DAY = 86400.0


def check_clock(asked: Asked, found: Findings) -> None:
    """Against the newest of the project's own files. The hub's clock is compared in `hub`."""
    files = [HOME / "pyproject.toml", HOME / "constraints.txt", *(HOME / "align").rglob("*.py")]
    newest = max(file.stat().st_mtime for file in files)
    now = time.time()
    said = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < newest - DAY:
        behind = f"{said} is {(newest - now) / DAY:.0f} days before the project was written"
        cure = "sudo timedatectl set-ntp true (certificates of the hub fail, too)"
        found.warning("clock", behind, cure)
    else:
        found.note("clock", said)
