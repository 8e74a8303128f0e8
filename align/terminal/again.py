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
    starter = os.environ.get(STARTED_BY, "").partition(" ")[0]
    if starter not in ("", str(os.getpid())):  # a chain's own process knows its command
        return "give the same command of scripts/run.py again"
    command = list(sys.argv)
    # How several processes were launched is not told to them.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    by = "accelerate launch … " if several else "python "
    if Path(command[0]).stem in WITHOUT_RESUME or "--check" in command:
        return f"give the same command again: {by}{shlex.join(command)}"
    if "--resume" not in command:
        command.append("--resume")
    return f"give the same command with --resume: {by}{shlex.join(command)}"
