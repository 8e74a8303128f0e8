"""SIGTERM as a request: save, then exit. SIGINT (Ctrl-C) as an order: end, and end at once if it
comes twice.

While completions are sampled nothing has changed since the step began, so SIGTERM breaks in there
at once; between the first and the last optimizer step of a rollout it waits for the last. SIGINT
saves nothing, and may break in anywhere: what is on disk is whole or has a temporary name.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

from align.again import STARTED_BY, again

PR_SET_PDEATHSIG = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT
SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar hides


class Preempted(BaseException):
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


def end_on_interrupt() -> None:
    """From now on Ctrl-C ends this process with one line, an exit code and no traceback."""
    signal.signal(signal.SIGINT, _on_interrupt)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _on_second)
    # One process speaks for all, and the chain for its stages.
    if os.environ.get("RANK", "0") == "0" and STARTED_BY not in os.environ:
        say_interrupted()
    raise SystemExit(EXIT_INTERRUPTED)


def say_interrupted() -> None:
    """Also from inside a handler, where what was being printed holds the stream's lock."""
    os.write(2, f"\nstopped by Ctrl-C; to go on, {again()}\n".encode())


def _on_second(number: int, frame: FrameType | None) -> None:
    """Without closing anything: whoever asks twice does not want to wait."""
    for one in _below(os.getpid()):
        _kill(one)
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)
    os._exit(EXIT_INTERRUPTED)


def kill_with_children(pid: int) -> None:
    """End a process and all that it has started."""
    family = _below(pid)
    with suppress(psutil.NoSuchProcess):
        _kill(psutil.Process(pid))
    for one in family:
        _kill(one)


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def _follow_launcher() -> None:
    """Get SIGTERM when the launcher dies: `accelerate launch` does not pass it on.

    Not without a launcher: a run that was put in the background outlives its shell.
    """
    launched = any(name in os.environ for name in ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK"))
    if launched and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
