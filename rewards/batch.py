"""One run of a pool: calls spread over workers, answers collected, in the caller's thread.

Calls are sent in runs and answered one by one, and the clock of a call starts with the answer
before it: a call costs 0.04 ms, and a hostile one its neighbours nothing, for they go on to a
fresh worker.
"""

import json
import pickle
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from rewards.core import Outcome
from rewards.workers import Worker

if TYPE_CHECKING:
    from rewards.pool import Pool

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


class _Run:
    """The calls a worker was sent and has not answered, and when the first is overdue."""

    def __init__(self, worker: Worker, calls: list[int]) -> None:
        self.worker, self.calls = worker, calls
        self.loaded = False
        self.deadline = time.monotonic() + LOAD_SECONDS


class Batch:
    """One `Pool.run`: spreads the calls over workers and collects the answers, all in the caller's
    thread.
    """

    def __init__(self, pool: "Pool", function: bytes, calls: list[Call], seconds: float) -> None:
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
        """Give every free worker a run of calls; waits for a worker only where this batch has
        none.
        """
        while self.todo and (worker := self.pool.take(block=not self.active)):
            # A quarter of what is left, so that workers of unequal luck end at about the same time.
            size = min(_RUN, max(1, len(self.todo) // 4))
            run = _Run(worker, [self.todo.pop() for _ in range(size)])
            # Calls that begin alike stay together, up to half of all: what the function works out
            # for their first argument (a gold, parsed) it can keep.
            while self._alike(run.calls[-1]) and len(run.calls) < min(_RUN, len(self.calls) // 2):
                run.calls.append(self.todo.pop())
            self.active[worker.connection] = run
            calls = [self.calls[i] for i in run.calls]
            try:
                worker.connection.send_bytes(pickle.dumps((sys.path, self.function, calls)))
            except OSError:
                # A worker that died while it was idle has nothing to do with the call.
                self._end(run, "crash" if worker.fresh else None)

    def _alike(self, last: int) -> bool:
        """Whether the next call has the same text as its first argument."""
        if not self.todo:
            return False
        firsts = [self.calls[i][0][:1] for i in (last, self.todo[-1])]
        return all(first and type(first[0]) is str for first in firsts) and firsts[0] == firsts[1]

    def _read(self, run: _Run) -> None:
        try:
            message = run.worker.connection.recv_bytes(_MAX_REPLY)
            reply = json.loads(message) if message else None
        except (EOFError, OSError, ValueError, RecursionError):
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
        """Kill a run's worker; its current call gets `outcome`, the calls behind it wait for
        another worker.
        """
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
