"""Each stage in its own `accelerate launch`, or without CUDA in a process of its own, as each
evaluation: memory and vLLM start clean.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIG_IGN, SIGINT, SIGTERM, getsignal, signal
from typing import Any

import psutil

from align.config import Evaluation, Stage
from align.files.locate import REPOSITORY
from align.processes.interrupt import kill_with_children, say_interrupted

SCRIPTS = REPOSITORY / "scripts"
GRACE = 5.0  # seconds in which a stage has let go of its workers and its sampler after Ctrl-C


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """recipe, out: of the run. accelerate: a configuration file of accelerate's, or None for one
    process without CUDA and accelerate's own choice with it.
    """

    recipe: str
    out: Path
    report_to: str
    accelerate: Path | None

    @property
    def launches(self) -> bool:
        """Whether it takes a launcher, which needs seconds to start."""
        return self.accelerate is not None or _has_cuda()

    def stage(self, stage: Stage, flags: list[str]) -> list[str]:
        """The command that trains a stage."""
        command = [sys.executable]
        if self.launches:
            command += ["-m", "accelerate.commands.launch", "--quiet"]
        if self.accelerate is not None:
            command += ["--config_file", str(self.accelerate)]
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
    """Run to the end, passing SIGTERM and SIGINT on; end with the child's exit code if it fails.

    launched: the child is a launcher. It would die of a signal before its own child has saved a
    checkpoint, so that one is told instead, and waited for: after SIGINT for `GRACE` seconds, after
    a second one not at all.
    """
    asked: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        asked.append(number)
        if asked.count(SIGINT) > 1:
            kill_with_children(child.pid)
            return
        if number == SIGINT:
            say_interrupted()
        _tell(child.pid, number, launched=launched)

    previous = {number: getsignal(number) for number in (SIGINT, SIGTERM)}
    try:
        # Until a stage says what Ctrl-C does to it, it is deaf to it; and it is in a session of its
        # own, so that the terminal's comes here alone.
        signal(SIGINT, SIG_IGN)
        child = subprocess.Popen(command, start_new_session=True)
        for number in previous:
            signal(number, pass_on)
        code = _waited_for(child, asked)
    finally:
        for number, handler in previous.items():
            signal(number, handler)
    if asked:  # also where the child was about to end well: no next stage is begun
        raise SystemExit(128 + asked[-1])
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def _waited_for(child: subprocess.Popen[bytes], asked: list[int]) -> int:
    """The child's exit code. asked: the signals that have come meanwhile."""
    until = None
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=0.2)
        if SIGINT in asked:
            until = until or time.monotonic() + GRACE
            if time.monotonic() > until:
                kill_with_children(child.pid)


def _tell(pid: int, number: int, *, launched: bool) -> None:
    """Send a signal to a child, or to what a launcher has started."""
    with suppress(psutil.NoSuchProcess):  # it is about to be waited for
        process = psutil.Process(pid)
        below = process.children() if launched else [process]
        for told in below:
            told.send_signal(number)
        if not below:  # a launcher that has not come so far has nothing to say about it
            process.terminate()


def _has_cuda() -> bool:
    """Without importing torch, which takes seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return not hidden and any(Path("/dev").glob("nvidia[0-9]*"))
