"""SIGTERM as a request: save, then exit.

While completions are sampled nothing has changed since the step began, so SIGTERM breaks in there
at once; between the first and the last optimizer step of a rollout it waits for the last.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rewards import Ordered

PR_SET_PDEATHSIG = 1


class Preempted(Ordered):
    """Raised where SIGTERM may break in. Not an Exception: no handler on the way may swallow it."""


class Preemption:
    """Whether SIGTERM has come. Made once, in the main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._open = False
        signal.signal(signal.SIGTERM, self._on_signal)
        _follow_launcher()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, SIGTERM raises Preempted; one that came before raises at the start."""
        if self.asked:
            raise Preempted
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._open:
            self._open = False
            raise Preempted


def _follow_launcher() -> None:
    """Get SIGTERM when the launcher dies: `accelerate launch` does not pass it on.

    Not without a launcher: a run that was put in the background outlives its shell.
    """
    launched = any(name in os.environ for name in ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK"))
    if launched and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
