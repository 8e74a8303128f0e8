"""A pool of killable workers: hard limits on seconds and memory for each call, any function, any thread.

Why processes: a catastrophic pattern or a power of big integers holds the interpreter lock, so no thread or signal handler
ever runs; only SIGKILL from outside is a limit. Calls are sent in runs and answered one by one, and the clock of a call
starts with the answer before it, so a hostile call costs its neighbours nothing: they go on to a fresh worker.

Pebble 5.2 was measured first (2 cores): 0.05 ms a call, a 1 s limit settled in 1.07 s. It is fast enough, but like all that
stands on multiprocessing's spawn and forkserver its workers import the parent's `__main__` again (a training script, with
torch), and a replaced worker imports sympy again (0.3 s). Here workers are forked from `rewards.zygote`, in milliseconds.
"""

import atexit
import json
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from rewards.core import Outcome
from rewards.workers import Worker, Zygote

Call = tuple[tuple[Any, ...], dict[str, Any]]

LOAD_SECONDS = 60.0  # for a function's module to be imported in a worker
_RUN = 64  # calls sent to a worker at once
_MAX_REPLY = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one call: the function's value (JSON types; None unless "ok") and the outcome.

    error: the type of the exception, where the outcome is a "crash" by an exception.
    """

    value: Any
    outcome: Outcome
    error: str | None = None


class Pool:
    """Up to `workers` processes, each limited to `memory_mb` MiB above what it takes at rest.

    preload: modules the workers have imported before their first call. Started on first use; `close` ends it.
    """

    def __init__(
        self, *, workers: int | None = None, memory_mb: int = 1024, preload: Sequence[str] = ()
    ) -> None:
        self.memory_mb = memory_mb
        self.preload = tuple(preload)
        self.free = threading.Semaphore(workers or max(2, min(4, os.cpu_count() or 2)))
        self.idle: list[Worker] = []
        self.lock = threading.Lock()
        self.zygote: Zygote | None = None

    def run(self, fn: Callable[..., Any], calls: Sequence[Call], *, seconds: float) -> list[Result]:
        """Call `fn(*args, **kwargs)` for each call, each within `seconds`; results in the order of the calls.

        fn may be a coroutine function. Identical calls are made once. Raises TypeError where fn or an argument cannot be
        sent to another process, RuntimeError where fn cannot be loaded there.
        """
        places: dict[bytes, int] = {}
        distinct: list[Call] = []
        order = []
        for call in calls:
            place = places.setdefault(_dump(call), len(distinct))
            if place == len(distinct):
                distinct.append(call)
            order.append(place)
        results = _Batch(self, _dump_function(fn), distinct, seconds).run()
        return [results[place] for place in order]

    def take(self, *, block: bool) -> Worker | None:
        """A worker, forked if none is idle; None where all are taken and `block` is false."""
        if not self.free.acquire(blocking=block):
            return None
        try:
            with self.lock:
                if self.zygote is not None and not self.zygote.alive:
                    self.zygote = None
                    self.idle.clear()
                if self.zygote is None:
                    self.zygote = Zygote(self.memory_mb, self.preload)
                return self.idle.pop() if self.idle else Worker(self.zygote)
        except BaseException:
            self.free.release()
            raise

    def give(self, worker: Worker | None) -> None:
        """Hand a worker back; None for one that was killed."""
        if worker is not None:
            worker.fresh = False
            with self.lock:
                self.idle.append(worker)
        self.free.release()

    def close(self) -> None:
        """End the workers; the next `run` starts new ones."""
        with self.lock:
            zygote, self.zygote = self.zygote, None
            for worker in self.idle:
                worker.connection.close()
            self.idle.clear()
        if zygote is not None:
            zygote.close()


class _Run:
    """The calls a worker was sent and has not answered yet, and when the first of them is overdue."""

    def __init__(self, worker: Worker, calls: list[int]) -> None:
        self.worker, self.calls = worker, calls
        self.loaded = False
        self.deadline = time.monotonic() + LOAD_SECONDS


class _Batch:
    """One `Pool.run`: spreads the calls over workers and collects the answers, all in the caller's thread."""

    def __init__(self, pool: Pool, function: bytes, calls: list[Call], seconds: float) -> None:
        self.pool, self.function, self.calls, self.seconds = pool, function, calls, seconds
        self.todo = list(range(len(calls) - 1, -1, -1))  # a stack, first call on top
        self.results: list[Any] = [None] * len(calls)
        self.active: dict[Connection, _Run] = {}

    def run(self) -> list[Result]:
        try:
            while self.todo or self.active:
                self._send()
                soonest = min(run.deadline for run in self.active.values())
                for connection in wait(list(self.active), max(0.0, soonest - time.monotonic())):
                    self._read(self.active[connection])  # type: ignore[index]
                now = time.monotonic()
                for run in [run for run in self.active.values() if run.deadline <= now]:
                    if not run.loaded:
                        raise RuntimeError(
                            f"importing the function took more than {LOAD_SECONDS} s in a worker"
                        )
                    self._end(run, "timeout")
        finally:
            for (
                run
            ) in self.active.values():  # none are left unless something was raised, Ctrl-C included
                run.worker.kill()
                self.pool.give(None)
        return self.results

    def _send(self) -> None:
        """Give every free worker a run of calls; waits for a worker only where this batch has none."""
        while self.todo and (worker := self.pool.take(block=not self.active)):
            # A quarter of what is left, so that workers of unequal luck end at about the same time.
            size = min(_RUN, max(1, len(self.todo) // 4))
            run = _Run(worker, [self.todo.pop() for _ in range(size)])
            self.active[worker.connection] = run
            calls = [self.calls[i] for i in run.calls]
            try:
                worker.connection.send_bytes(pickle.dumps((sys.path, self.function, calls)))
            except OSError:
                # A worker that died while it was idle has nothing to do with the call.
                self._end(run, "crash" if worker.fresh else None)

    def _read(self, run: _Run) -> None:
        try:
            message = run.worker.connection.recv_bytes(_MAX_REPLY)
            reply = json.loads(message) if message else None
        except (EOFError, OSError, ValueError):
            self._end(run, "crash")
            return
        run.deadline = time.monotonic() + self.seconds
        if reply is None:  # the function is loaded: the first call's clock starts
            run.loaded = True
        elif "load" in reply:
            raise RuntimeError(
                f"the function could not be loaded in a worker process ({reply['load']}); "
                "put it into a module that can be imported"
            )
        else:
            self._settle(run, reply)

    def _settle(self, run: _Run, reply: dict[str, Any]) -> None:
        self.results[run.calls.pop(0)] = Result(
            value=reply["value"], outcome=reply["outcome"], error=reply.get("error")
        )
        if reply["retire"]:
            self._end(run, None)
        elif not run.calls:
            del self.active[run.worker.connection]
            self.pool.give(run.worker)

    def _end(self, run: _Run, outcome: Outcome | None) -> None:
        """Kill a run's worker; its current call gets `outcome`, the calls behind it wait for another worker."""
        del self.active[run.worker.connection]
        try:
            peak = run.worker.kill()
        finally:
            self.pool.give(None)
        if outcome == "crash" and peak > 0.9 * self.pool.memory_mb:
            outcome = "memory"  # a library that aborts where it is refused memory
        if outcome is not None:
            self.results[run.calls.pop(0)] = Result(value=None, outcome=outcome)
        self.todo.extend(reversed(run.calls))


def _dump(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"cannot be sent to a worker process: {error}; pass plain values") from None


def _dump_function(fn: Callable[..., Any]) -> bytes:
    """The function by name; by value, with cloudpickle, where it lives in `__main__` or has no name to import it by."""
    try:
        data = pickle.dumps(fn)
        if b"__main__" not in data:
            return data
    except (pickle.PicklingError, AttributeError, TypeError):
        pass  # a lambda or an inner function
    try:
        import cloudpickle
    except ImportError:
        raise TypeError(
            f"{fn!r} cannot be sent to a worker process: define it at the top level of a module, or pip install cloudpickle"
        ) from None
    return cloudpickle.dumps(fn)


_pools: dict[tuple[int, tuple[str, ...]], Pool] = {}
_pools_lock = threading.Lock()


def shared(memory_mb: int = 1024, preload: Sequence[str] = ()) -> Pool:
    """This process's pool for a memory limit, made on first use and closed at exit."""
    key = (memory_mb, tuple(preload))
    with _pools_lock:
        if key not in _pools:
            _pools[key] = Pool(memory_mb=memory_mb, preload=preload)
        return _pools[key]


def close_all() -> None:
    """Close every shared pool; the next use starts a new one."""
    with _pools_lock:
        pools = list(_pools.values())
        _pools.clear()
    for pool in pools:
        pool.close()


def _forget() -> None:
    """In a forked child the parent's workers are not ours."""
    global _pools_lock
    _pools_lock = threading.Lock()
    for pool in _pools.values():
        if pool.zygote is not None:
            pool.zygote.forget()
    _pools.clear()


atexit.register(close_all)
os.register_at_fork(after_in_child=_forget)
