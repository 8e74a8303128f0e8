"""How a command that ended early is given again."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

STARTED_BY = "ALIGN_STARTED_BY"  # pid and start of the command that a process belongs to
# These find by themselves what is there already.
WITHOUT_RESUME = ("bench", "evaluate", "report", "run")


def again() -> str:
    """What to type to go on, as the end of a sentence."""
    if STARTED_BY in os.environ:
        return "give the same scripts/run.py command again"
    command = list(sys.argv)
    if Path(command[0]).stem in WITHOUT_RESUME:
        return f"give the same command again: {shlex.join(command)}"
    if "--resume" not in command:
        command.append("--resume")
    return f"give the same command with --resume: {shlex.join(command)}"
