"""Orders and answers, a JSON object a line, between the process that asks and one that works.

Strictly in turn: an order, then its answer. So the worker's child may read from the pipe that the
worker reads from, and nothing of the next order waits in a buffer.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

Side = Literal["ours", "trl"]


class WorkerError(RuntimeError):
    """A case that a worker could not do; the message has its last lines."""


class Ended(Exception):
    """No more orders for this case."""


class Channel:
    """The worker's end: standard input, and a copy of standard output that no library prints to."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self.reader, self.writer = reader, writer
        self.waited = 0.0
        """Processor seconds that this process used while it waited for the last order."""

    @staticmethod
    def standard() -> Channel:
        """Takes standard output away from everybody else: prints go to standard error."""
        writer = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        return Channel(os.fdopen(os.dup(0), "rb", buffering=0), writer)

    def next(self) -> dict[str, Any]:
        """The next order. Raises Ended at the end of the case, or of the process that asks."""
        began = time.process_time()
        line = self.reader.readline()
        self.waited = time.process_time() - began
        order = json.loads(line) if line else {"do": "close"}
        if order["do"] == "close":
            raise Ended
        return order

    def answer(self, **values: Any) -> None:
        self.writer.write((json.dumps(values) + "\n").encode())


class Worker:
    """The asking end of one side, started when it is made."""

    def __init__(self, side: Side, *, threads: int, device: str, log: Path) -> None:
        self.side = side
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "align.bench.side", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            env=environment(threads=threads, device=device),
        )

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Send an order and wait. Raises WorkerError for an answer that is an error."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write((json.dumps({"do": do, **values}) + "\n").encode())
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise WorkerError(f"{self.side}: the process has ended; see {self.log}")
        answer = json.loads(line)
        if "error" in answer:
            self.process.stdout.readline()  # that the case is closed
            raise WorkerError(f"{self.side}: {answer['error']}")
        if "closed" in answer and do != "close":
            raise WorkerError(f"{self.side}: ended with {answer['closed']}; see {self.log}")
        return answer

    def once(self, do: str, **values: Any) -> dict[str, Any]:
        """An order that is a case of its own, over with its answer."""
        answer = self.ask(do, **values)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # that it is closed
        return answer

    def end(self) -> None:
        assert self.process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def environment(*, threads: int, device: str) -> Mapping[str, str]:
    """The same for both sides: so many threads, no hub, no progress bars."""
    left_out = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    return kept | count | quiet | ({"ACCELERATE_USE_CPU": "true"} if device == "cpu" else {})
