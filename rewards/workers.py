"""The parent's side of the worker processes: one zygote, and the workers it forks (see
`rewards.zygote`).
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

START_SECONDS = 60.0  # for the zygote to import what workers need
_STUCK_SECONDS = 5  # a worker that takes or gives no bytes for this long in mid-message is dead
_CODE = """import sys, json
sys.path[:] = json.loads(sys.argv.pop())
from rewards.zygote import main
main()"""


class Zygote:
    """The process that forks, kills and reaps workers, driven over a control socket. Safe from any
    thread.

    Raises RuntimeError where it does not start or has been killed.
    """

    def __init__(self, memory_mb: int, preload: Sequence[str]) -> None:
        self.lock = threading.Lock()
        self.control, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(os.getpid()), str(memory_mb), ",".join(preload)]
        with theirs:
            # One OpenMP thread: there are several workers, and a training job next door needs the
            # cores.
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *arguments, json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.broken = False
        self.control.settimeout(START_SECONDS)
        if self.control.recv(1) != b"r":
            test = f'{sys.executable} -c "import {", ".join(["rewards.zygote", *preload])}"'
            raise RuntimeError(f"the reward workers did not start; to see why, type: {test}")

    @property
    def alive(self) -> bool:
        return not self.broken and self.process.poll() is None

    def fork(self, theirs: socket.socket) -> int:
        """Fork a worker that serves the other end of this socket; returns its pid."""
        return self._ask(b"fork", [theirs.fileno()])

    def kill(self, pid: int) -> int:
        """Kill and reap a worker; returns its peak resident size in MiB, 0 where the zygote is
        gone and it too.
        """
        return self._ask(b"kill %d" % pid, []) if self.alive else 0

    def _ask(self, message: bytes, fds: list[int]) -> int:
        with self.lock:
            try:
                socket.send_fds(self.control, [message], fds)
                reply = self.control.recv(8, socket.MSG_WAITALL)
            except BaseException:
                # Interrupted between question and answer: the next answer would be taken for this
                # one.
                self.broken = True
                self.control.close()
                raise
        if len(reply) < 8:
            self.broken = True
            raise RuntimeError(
                "the reward workers were killed from outside; score again to restart them"
            )
        return int.from_bytes(reply)

    def close(self) -> None:
        """End the zygote, and with it every worker."""
        self.control.close()
        self.process.wait()

    def forget(self) -> None:
        """In a process forked from the parent: let go of the socket without a word to it."""
        os.close(self.control.detach())


class Worker:
    """A forked process and the connection to it."""

    def __init__(self, zygote: Zygote) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.pid = zygote.fork(theirs)
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STUCK_SECONDS, 0))
        self.connection = Connection(ours.detach())
        self.zygote = zygote
        self.fresh = True

    def kill(self) -> int:
        """End it; returns its peak resident size in MiB."""
        self.connection.close()
        return self.zygote.kill(self.pid)
