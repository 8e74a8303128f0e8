"""A pool of killable workers: hard limits on seconds and memory for each call, any function, any
thread.

Why processes: a catastrophic pattern or a power of big integers holds the interpreter lock, so no
thread or signal handler ever runs; only SIGKILL from outside is a limit. Calls are sent in runs
and answered one by one, and the clock of a call starts with the answer before it, so a hostile
call costs its neighbours nothing: they go on to a fresh worker.

Pebble 5.2 was measured first (2 cores): 0.05 ms a call, a 1 s limit settled in 1.07 s. It is fast
enough, but like all that stands on multiprocessing's spawn and forkserver its workers import the
parent's `__main__` again (a training script, with torch), and a replaced worker imports sympy
again (0.3 s). Here workers are forked from `rewards.zygote`, in milliseconds.
"""

import atexit
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rewards.batch import Batch, Call, Result
from rewards.workers import Worker, Zygote


class Pool:
    """Up to `workers` processes, each limited to `memory_mb` MiB above what it takes at rest.

    preload: modules the workers have imported before their first call. Started on first use;
    `close` ends it.
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
        """Call `fn(*args, **kwargs)` for each call, each within `seconds`; results in the order of
        the calls.

        fn may be a coroutine function. Identical calls are made once. Raises TypeError where fn or
        an argument cannot be sent to another process, RuntimeError where fn cannot be loaded
        there.
        """
        places: dict[bytes, int] = {}
        distinct: list[Call] = []
        order = []
        for call in calls:
            place = places.setdefault(_dump(call), len(distinct))
            if place == len(distinct):
                distinct.append(call)
            order.append(place)
        results = Batch(self, _dump_function(fn), distinct, seconds).run()
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


def _dump(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"cannot be sent to a worker process: {error}; pass plain values") from None


def _dump_function(fn: Callable[..., Any]) -> bytes:
    """The function by name; by value, with cloudpickle, where it lives in `__main__` or has no
    name to import it by.
    """
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
            f"{fn!r} cannot be sent to a worker process: define it at the top level of a module, "
            "or pip install cloudpickle"
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
