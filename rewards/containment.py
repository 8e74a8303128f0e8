"""A reward called in this process, kept from taking the process along: for functions of a user's,
which share it with a training run.

Inside `contained` a reward that sleeps is given up after so many seconds, one that ends the process
raises instead, the second process of one that forks ends where it comes back, and what it prints
goes to standard error. That is all that can be done from inside: a crash, a C function that never
returns (the process then ends and says where it hung) or memory taken at one stroke end the
process. `PerSample` runs a function where it can do nothing of that.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from types import FrameType
from typing import Any, NoReturn

EACH = 5.0  # seconds more for every completion of a batch
GRACE = 15.0  # seconds from giving a call up to ending the process that it does not give back
LEAST_FREE = 0.03  # share of the machine's memory below which a call that took some is given up
TAKEN = 1 << 30  # bytes that it must have taken
_LOOK = 0.5  # seconds
# Nobody else's: a function may use SIGALRM for limits of its own, as math-verify does.
_SIGNAL = signal.SIGVTALRM


class ContainedError(RuntimeError):
    """What a reward must not do to its process; the message goes on from the reward's name."""


class _GiveUpError(BaseException):
    """Not an Exception, so that a function which swallows its own errors does not swallow this."""


@contextmanager
def contained(*, patience: float, completions: int) -> Iterator[None]:
    """Inside, this process outlives a call of a reward with so many completions (see above).

    patience: seconds for the first completion; each further one adds `EACH`. They are counted in
    the main thread alone, which signals reach. Raises ContainedError.
    """
    seconds = patience + EACH * max(completions - 1, 0)
    process, leave = os.getpid(), os._exit

    def instead(code: int) -> NoReturn:
        if os.getpid() != process:  # a child's own business
            leave(code)
        raise SystemExit(code)

    try:
        with _limited(seconds), redirect_stdout(sys.stderr):
            os._exit = instead  # type: ignore[assignment]
            try:
                yield
            finally:
                os._exit = leave
                if os.getpid() != process:
                    leave(0)  # the run goes on in one process
    except SystemExit as error:
        raise ContainedError(
            f"ended the process (exit {error.code}); it must return its values"
        ) from error
    except _GiveUpError as error:
        raise ContainedError(str(error)) from None


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Inside, the main thread is interrupted when time or memory is over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    said: list[str] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not over.is_set():
            raise _GiveUpError(said[0])

    def watch() -> None:
        deadline, before = time.monotonic() + seconds, _resident()
        while not over.wait(_LOOK):
            if not said and _starving(before):
                taken = (_resident() - before) / 2**30
                said.append(f"has taken {taken:.1f} GiB, the last of the memory{_CURE}")
            if not said and time.monotonic() > deadline:
                said.append(f"has not answered for {seconds:g} s{_CURE}")
            if said and not over.is_set():  # again, where it swallowed the last one
                signal.pthread_kill(main, _SIGNAL)

    main = threading.get_ident()
    handler = signal.signal(_SIGNAL, interrupt)
    # Threads and signals wait for the interpreter's lock, which a C function may never give back.
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=sys.__stderr__)
    watcher = threading.Thread(target=watch, name="watching a reward", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(_SIGNAL, handler)
        faulthandler.cancel_dump_traceback_later()


_CURE = (
    ": run it under limits, sample by sample, as rewards.PerSample(fn=..., seconds=5) or "
    "rewards.from_trl(fn, seconds=5); if it only takes long, rewards.from_trl(fn, patience=600)"
)


def _starving(before: int) -> bool:
    return _resident() - before > TAKEN and _free() < LEAST_FREE


def _resident() -> int:
    """This process's memory in bytes; 0 where the system does not tell (not Linux)."""
    with suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _free() -> float:
    """The share of the machine's memory that is free; 1 where the system does not tell."""
    with suppress(OSError), open("/proc/meminfo") as file:
        lines: dict[str, Any] = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) / int(lines["MemTotal"].split()[0])
    return 1.0
