"""The process that pool workers are forked from, and the workers' own loop.

`rewards.workers` starts one zygote by exec: a fresh, single-threaded interpreter that imports the
symbolic comparison once and then forks a worker within milliseconds whenever one is wanted. It
never imports the parent's `__main__`, and nothing is forked from a process that has threads. A
worker talks to the parent over its own socket; the zygote forks, kills and reaps.

Containment: a worker leads its own process group in a session without a terminal (Ctrl-C does not
reach it, and killing the group takes its children along; those that leave the group fall to the
zygote, which kills strangers), has no standard input or output, a hard address-space limit, and
dies with the zygote, which dies with the parent.
"""

import asyncio
import ctypes
import gc
import importlib
import inspect
import json
import os
import pickle
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_MIB = 1 << 20


def main() -> None:
    """Serve the control socket: b"fork" with a socket attached -> pid; b"kill <pid>" -> peak MiB;
    end of file -> exit.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    parent, memory_mb, preload = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
    for name in filter(None, preload):
        module = importlib.import_module(name)
        getattr(module, "warm", lambda: None)()
    gc.freeze()  # workers share these pages; a collection in a worker would copy them
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    control.sendall(b"r")
    workers: set[int] = set()
    # The parent's end may have been inherited by a process it forked, so its death is also watched
    # for.
    while os.getppid() == parent:
        _sweep(workers)
        if not select.select([control], [], [], 1.0)[0]:
            continue
        message, fds, _, _ = socket.recv_fds(control, 64, 1)
        if not message:
            break
        if message == b"fork":
            pid = _fork(control, fds[0], memory_mb)
            os.close(fds[0])
            workers.add(pid)
            control.sendall(pid.to_bytes(8))
        else:
            pid = int(message.split()[1])
            workers.discard(pid)
            control.sendall(_kill(pid).to_bytes(8))
    for pid in workers:
        _kill(pid)
    _sweep(set())


def _kill(pid: int) -> int:
    """Kill the worker with its process group, reap it, and return its peak resident size in MiB."""
    with suppress(ProcessLookupError):  # it ended by itself and still waits to be reaped
        os.killpg(pid, signal.SIGKILL)
    _, _, usage = os.wait4(pid, 0)
    return usage.ru_maxrss // 1024


def _sweep(workers: set[int]) -> None:
    """Kill what a worker's function left behind: orphans, which fall to this process (Linux)."""
    with suppress(FileNotFoundError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        for pid in {int(pid) for pid in file.read().split()} - workers:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _fork(control: socket.socket, fd: int, memory_mb: int) -> int:
    zygote = os.getpid()
    pid = os.fork()
    if pid:
        with suppress(OSError):
            os.setpgid(pid, pid)  # here and in the child: killpg must work whoever runs first
        return pid
    try:
        os.setpgid(0, 0)
        control.close()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == zygote:
            limit = _address_space() + memory_mb * _MIB
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            serve(Connection(fd), memory_mb)
    finally:
        os._exit(0)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _address_space() -> int:
    """This process's address space in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def serve(connection: Connection, memory_mb: int) -> None:
    """Run what the parent sends until it hangs up.

    In: one pickled (sys.path, pickled function, calls) a message, a call being (args, kwargs).
    Out: first b"" once the function is loaded, then one JSON object a call. Only JSON goes back:
    nothing a worker says can run code in the parent.
    """
    worker, rest = os.getpid(), _address_space()
    while True:
        try:
            # The parent's own pickles: this process trusts it, and never the other way round.
            sys.path[:], function, calls = pickle.loads(connection.recv_bytes())  # noqa: S301
        except (EOFError, OSError):
            return
        try:
            fn = pickle.loads(function)  # noqa: S301
        except BaseException as error:
            connection.send_bytes(json.dumps({"load": f"{type(error).__name__}: {error}"}).encode())
            return
        connection.send_bytes(b"")
        for args, kwargs in calls:
            reply = _answer(fn, args, kwargs)
            if os.getpid() != worker:  # the function forked and came back twice
                os._exit(0)
            grown = _address_space() - rest
            # Its memory is not what it was, or it is not alone: the next call gets a fresh process.
            starved = reply["outcome"] == "memory" or grown > memory_mb * _MIB // 4
            reply["retire"] = _has_children() or starved
            connection.send_bytes(json.dumps(reply).encode())


def _answer(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Call the function; whatever it raises, SystemExit included, is an outcome."""
    try:
        value = fn(*args, **kwargs)
        if inspect.isawaitable(value):
            value = asyncio.run(_awaited(value))
        if not isinstance(value, (bool, int, float, str, list, dict, type(None))):
            value = float(value)
        json.dumps(value)
        return {"outcome": "ok", "value": value}
    except MemoryError:
        return {"outcome": "memory", "value": None}
    except BaseException as error:
        # The type alone: str() of a symbolic object in the message may never return.
        return {"outcome": "crash", "value": None, "error": type(error).__name__}


async def _awaited(value: Any) -> Any:
    return await value


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True
