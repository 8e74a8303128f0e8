"""What the doctor is asked to look at, and the words that several checks use."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Not align.files.locate's: that one imports `data`, which something else may hide.
HOME = Path(__file__).resolve().parents[2]
PIP = f"{sys.executable} -m pip"
SETUP = "rm -f .venv/.ready && make setup"

Topic = Literal[
    "python", "project", "versions", "packages", "torch", "memory", "limits", "threads", "disk",
    "ports", "hub", "launch", "text", "clock", "recipe",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to look at besides the machine itself."""

    recipe: str | None = None
    """A recipe's name: its models, data, sampler and room on the disk are looked at too."""
    out: Path | None = None
    """The run folder, whose disk is looked at; default: the recipe's, else the current folder."""
    accelerate: Path | None = None
    """A configuration file of accelerate's that will be used."""
    only: tuple[Topic, ...] = ()
    """These topics alone."""
    seconds: float = 20.0
    """How long anything that may hang is waited for (importing torch, nvidia-smi, the hub)."""
    json: bool = False
    """Print what was found as JSON: a list of objects with level, check, said and cure."""

    @property
    def folder(self) -> Path:
        if self.out is not None:
            return self.out
        return Path("runs") / self.recipe if self.recipe else Path()
