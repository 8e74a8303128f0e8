"""A command with a time limit that holds even where the command has children of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ended:
    """code: the exit code, negative for a signal, None where the time was up and it was killed."""

    code: int | None
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line that says something, of stderr before stdout."""
        lines = [line.strip() for line in f"{self.out}\n{self.err}".splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"


def call(command: Sequence[str], *, seconds: float) -> Ended:
    """Run it to its end or for so many seconds. Raises FileNotFoundError, PermissionError."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
        return Ended(code=process.returncode, out=out, err=err)
    except subprocess.TimeoutExpired:
        # The whole group: a grandchild would hold the pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return Ended(code=None, out=out, err=err)
