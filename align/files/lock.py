"""One run a folder at a time, and none that outlives the command that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from align.files.disk import FolderError, writing
from align.files.folder import made
from align.terminal.again import STARTED_BY

LOOK_EVERY = 0.5  # seconds


@contextlib.contextmanager
def locked(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold FOLDER/.lock, which the kernel frees when the process is gone, however it went.

    Raises FolderError where another process holds it, after `wait` seconds, where the folder cannot
    be made or locked, and for what its disk refuses meanwhile; see `align.files.disk`.
    """
    made(folder)
    lock, holder = FileLock(folder / ".lock", timeout=wait), folder / ".pid"
    try:
        lock.acquire()
    except Timeout:
        raise FolderError(_held(folder, holder)) from None
    except (OSError, NotImplementedError) as error:  # the latter where there is no flock
        raise FolderError(_unlocked(folder, error)) from error
    try:
        with writing(folder):
            holder.write_text(f"{os.getpid()} {socket.gethostname()}\n")
            yield
    finally:
        lock.release()


def check_free(folder: Path) -> None:
    """Raises FolderError where another process holds the folder; makes and leaves nothing."""
    if (folder / ".lock").exists():
        with locked(folder):
            pass


def _held(folder: Path, holder: Path) -> str:
    pid, _, host = (holder.read_text().strip() if holder.is_file() else "").partition(" ")
    pid, host = pid or "unknown", host or "unknown"
    there = "" if host == socket.gethostname() else f" on {host}"
    return (
        f"another run (process {pid} on {host}) is at work in {folder}: wait for its end, stop it "
        f"(kill {pid}{there}), or choose another folder with --out"
    )


def _unlocked(folder: Path, error: Exception) -> str:
    refusal = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (
        f"{folder} cannot be locked ({refusal}), which keeps two runs apart: it must be writable "
        "and on a file system that has locks (for NFS: mounted with locks); else choose another "
        "folder with --out"
    )


def mark_children() -> None:
    """What this process starts from now on ends with it; see `end_with_starter`."""
    os.environ[STARTED_BY] = f"{os.getpid()} {_started(os.getpid())}"


def end_with_starter() -> None:
    """Send this process SIGTERM once the command that started it is gone.

    A command killed with SIGKILL takes nobody along. A stage left behind would write on in a
    folder that the next command continues; so it saves a checkpoint and ends.
    """
    if STARTED_BY not in os.environ:
        return
    pid, begun = os.environ[STARTED_BY].split()

    def watch() -> None:
        while _started(int(pid)) == begun:
            time.sleep(LOOK_EVERY)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-starter", daemon=True).start()


def _started(pid: int) -> str | None:
    """When a process began, in clock ticks since the boot, which no step of the clock changes; None
    for one that is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]
