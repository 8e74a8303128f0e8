"""A reward called in this process, kept from taking the process along: for functions of a user's,
which share it with a training run.

Inside `contained` a reward that sleeps is given up after so many seconds, one that ends the process
raises instead, the second process of one that forks ends where it comes back, what it prints goes
to standard error, which it cannot close; afterwards the process is in its folder again, and torch
keeps gradients if it did. That is all that can be done from inside: a crash, a C function that
never returns (the process then ends and says where it hung) or memory taken at one stroke end the
process. `PerSample` runs a function where it can do nothing of that.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from types import FrameType
from typing import Any, NoReturn, Self

from rewards.raised import raised

EACH = 5.0  # seconds more for every completion of a batch
GRACE = 15.0  # seconds from giving a call up to ending the process that it does not give back
LEAST_FREE = 0.03  # share of the machine's memory below which a call that took some is given up
TAKEN = 1 << 30  # bytes that it must have taken
_LOOK = 0.5  # seconds
# Nobody else's: a function may use SIGALRM for limits of its own, as math-verify does.
_SIGNAL = signal.SIGVTALRM


class ContainedError(RuntimeError):
    """What a reward must not do to its process; the message goes on from the reward's name."""


class Interrupted(SystemExit):
    """For a process's own handlers of signals to raise: its end, and none of the reward's doing.

    A reward that swallows it, as by a bare `except:`, gets it again.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        for call in _inside:
            call.end = self


class Ordered(BaseException):
    """For the same handlers, where the process is to do something else than to end."""


@contextmanager
def contained(*, patience: float, completions: int) -> Iterator[None]:
    """Inside, this process outlives a call of a reward with so many completions (see above).

    patience: seconds for the first completion; each further one adds `EACH`. They are counted in
    the main thread alone, which signals reach. faulthandler has one timer, and does not tell who
    has set it: inside it is this function's, and whoever had set it before sets it again. Raises
    ContainedError, also for what is no Exception, such as a coroutine's CancelledError;
    `Interrupted`, `Ordered` and KeyboardInterrupt pass.
    """
    seconds = patience + EACH * max(completions - 1, 0)
    process, leave = os.getpid(), os._exit
    torch = sys.modules.get("torch")  # where a trainer has it
    grad = torch is not None and torch.is_grad_enabled()

    def instead(code: int) -> NoReturn:
        if os.getpid() != process:  # a child's own business
            leave(code)
        raise SystemExit(code)

    try:
        with _limited(seconds), redirect_stdout(_Aside(sys.stderr)), _same_directory():
            os._exit = instead  # type: ignore[assignment]
            try:
                yield
            finally:
                os._exit = leave
                if os.getpid() != process:
                    leave(0)  # the run goes on in one process
                if torch is not None and torch.is_grad_enabled() != grad:
                    torch.set_grad_enabled(grad)  # or nothing would train
    except (Exception, Interrupted, Ordered, KeyboardInterrupt, _GiveUpError):
        raise
    except SystemExit as error:
        raise ContainedError(
            f"ended the process (exit {error.code}); it must return its values"
        ) from error
    except BaseException as error:
        raise ContainedError(raised(error)) from error


class _Aside:
    """A stream, but that closing it or what it writes to closes nothing."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        return _Aside(found) if name in ("buffer", "raw") else found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing: the run has more to say."""


@contextmanager
def _same_directory() -> Iterator[None]:
    """A run's folder may be named relative to where the run was started."""
    # Where the system can, without a right to read the folder.
    how = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
    with ExitStack() as undo:
        with suppress(OSError):  # it is gone, and there is nothing to come back to
            before = os.open(".", how)
            undo.callback(os.close, before)
            undo.callback(os.fchdir, before)
        yield


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Inside, the main thread is interrupted when time or memory is over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    call = _Call(seconds)
    try:
        # Undone from the last to the first, each whatever breaks into the others.
        with ExitStack() as undo:
            undo.callback(_set_alarm)
            undo.callback(signal.signal, _SIGNAL, signal.getsignal(_SIGNAL))
            signal.signal(_SIGNAL, _interrupt)
            if not _inside:
                # The system's own clock of computing: it also gets through to a regular expression,
                # which keeps the interpreter's lock from the watcher and looks for signals itself.
                undo.callback(signal.setitimer, signal.ITIMER_VIRTUAL, 0)
                signal.setitimer(signal.ITIMER_VIRTUAL, _LOOK, _LOOK)
            call.watcher.start()
            undo.callback(call.watcher.join)
            undo.callback(call.over.set)
            _inside.append(call)
            undo.callback(_inside.remove, call)  # from here on it interrupts nothing
            _set_alarm()
            try:
                yield
            except BaseException as error:
                if call.end not in (None, error):  # made into another one
                    raise call.end from error
                raise
            if call.end is not None:
                raise call.end
    except _GiveUpError as error:
        if error.call is not call:
            raise
        raise ContainedError(call.said) from None
    except Exception as error:
        if not call.said:
            raise
        raise ContainedError(call.said) from error


class _Call:
    """A call and the thread that interrupts it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.said = ""  # why it is given up
        self.end: Interrupted | None = None  # of the process
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, name="watching a reward", daemon=True)

    def look(self) -> None:
        """Give it up once its time is over."""
        if not self.said and time.monotonic() > self.deadline:
            self.said = f"has not answered for {self.seconds:g} s{_CURE}"

    def _watch(self) -> None:
        main, before = threading.main_thread().ident, _resident()
        while not self.over.wait(_LOOK):
            if not self.said and _starving(before):
                taken = (_resident() - before) / 2**30
                self.said = f"has taken {taken:.1f} GiB, the last of the memory{_CURE}"
            self.look()
            # Again, where it swallowed the last one.
            if (self.said or self.end) and main is not None:
                signal.pthread_kill(main, _SIGNAL)


class _GiveUpError(BaseException):
    """Not an Exception, so that a function which swallows its own errors does not swallow this."""

    def __init__(self, call: _Call) -> None:
        super().__init__(call.said)
        self.call = call


_inside: list[_Call] = []  # those that have begun, the outermost first


def _interrupt(number: int, frame: FrameType | None) -> None:
    # On the way in or out nothing may break in; if the call is not over, the signal comes again.
    if frame is not None and frame.f_globals.get("__name__") in (__name__, "contextlib"):
        return
    for call in _inside:
        call.look()
        if call.end is not None:
            raise call.end
        if call.said:
            raise _GiveUpError(call)


def _set_alarm() -> None:
    """End the process where not even a signal gets through to one of the calls.

    Threads and signals wait for the interpreter's lock, which a C function may never give back.
    """
    if not _inside:
        faulthandler.cancel_dump_traceback_later()
        return
    left = min(call.deadline for call in _inside) + GRACE - time.monotonic()
    faulthandler.dump_traceback_later(max(left, _LOOK), exit=True, file=sys.__stderr__)


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
