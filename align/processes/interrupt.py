"""SIGINT (Ctrl-C) as an order: end, and end at once if it comes twice.

It saves nothing, and may break in anywhere: what is on disk is whole or has a temporary name.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

import psutil

from align.terminal.again import STARTED_BY, again
from rewards import Interrupted

EXIT_INTERRUPTED = 128 + signal.SIGINT
SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar hides


def end_on_interrupt() -> None:
    """From now on Ctrl-C ends this process with one line, an exit code and no traceback."""
    signal.signal(signal.SIGINT, _on_interrupt)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _on_second)
    # One process speaks for all, and the chain for its stages.
    if os.environ.get("RANK", "0") == "0" and STARTED_BY not in os.environ:
        say_interrupted()
    raise Interrupted(EXIT_INTERRUPTED)


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
