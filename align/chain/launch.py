"""Each stage in its own `accelerate launch`, each evaluation in a process of its own: memory and
vLLM start clean.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from align.config import Evaluation, Stage
from align.locate import REPOSITORY

SCRIPTS = REPOSITORY / "scripts"
ACCELERATE = REPOSITORY / "recipes" / "accelerate"


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """recipe, out: of the run. accelerate: a configuration file of accelerate's, or None for one
    process without CUDA and accelerate's own choice with it.
    """

    recipe: str
    out: Path
    report_to: str
    accelerate: Path | None

    def stage(self, stage: Stage, flags: list[str]) -> list[str]:
        """The command that trains a stage."""
        command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
        if self.accelerate is not None:
            command += ["--config_file", str(self.accelerate)]
        elif not _has_cuda():
            command += ["--config_file", str(ACCELERATE / "cpu.yaml")]
        command += [str(SCRIPTS / f"{stage.kind}.py"), *self._common(), "--stage", stage.name]
        if stage.writes != "data":
            command += ["--report-to", self.report_to]
        return [*command, *flags]

    def evaluation(
        self, model: str, label: str, evaluation: Evaluation, flags: list[str]
    ) -> list[str]:
        """The command that evaluates a model under that label."""
        command = [sys.executable, str(SCRIPTS / "evaluate.py"), *self._common()]
        command += ["--evaluation", evaluation.name, "--model", model, "--label", label]
        return [*command, *flags]

    def _common(self) -> list[str]:
        return ["--recipe", self.recipe, "--out", str(self.out)]


def call(command: list[str], *, launched: bool) -> None:
    """Run to the end, passing SIGTERM on; end with the child's own exit code if it fails.

    launched: the child is a launcher. It would die of SIGTERM before its own child has saved a
    checkpoint, so that one is told instead, and waited for.
    """
    child = subprocess.Popen(command)
    asked = False

    def pass_on(*_: Any) -> None:
        nonlocal asked
        asked = True
        process = psutil.Process(child.pid)
        for told in (launched and process.children()) or [process]:
            told.terminate()

    previous = signal.signal(signal.SIGTERM, pass_on)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        code = child.wait()  # the terminal has told the child already
    finally:
        signal.signal(signal.SIGTERM, previous)
    if asked:  # also where the child was about to end well: no next stage is begun
        raise SystemExit(128 + signal.SIGTERM)
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def _has_cuda() -> bool:
    """Without importing torch, which takes seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return not hidden and any(Path("/dev").glob("nvidia[0-9]*"))
