"""Functions that workers run in the pool's tests: at the top level of a module, so that a worker
can import them.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path


def add_one(x: int) -> int:
    return x + 1


async def add_one_later(x: int) -> int:
    await asyncio.sleep(0.01)
    return x + 1


def record(path: str, word: str) -> str:
    """Append to a file, so that a test can count the calls."""
    with Path(path).open("a") as file:
        file.write(word + "\n")
    return word


def leave_process(path: str) -> int:
    """Start a process that outlives its parent and tell its id."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(path).write_text(str(process.pid))
    return process.pid


def misbehave(kind: str) -> str:
    """Everything that a reward function must not do."""
    if kind == "sleep":
        time.sleep(60)
    if kind == "power":  # holds the interpreter lock
        return str(9 ** (9**9) > 1)
    if kind == "pattern":  # holds it too
        re.match(r"(a+)+$", "a" * 40 + "b")
    if kind == "memory":
        return str(len(bytearray(4 << 30)))
    if kind == "leave":
        os._exit(3)
    if kind == "exit":
        sys.exit(3)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "raise":
        raise ValueError("no")
    if kind == "print":
        print("HELLO")
        os.write(1, b"HELLO")
    if kind == "fork" and os.fork():  # both processes come back, the child first
        time.sleep(0.2)
    return kind


def long_enough(text: str, solution: str, **row: object) -> float:
    return float(len(text) >= len(solution))


def slow_if_asked(completions: list[str], **columns: object) -> list[float]:
    if "slow" in completions[0]:
        time.sleep(60)
    return [float(len(c)) for c in completions]


def misbehave_as_number(text: str) -> float:
    return float(misbehave(text))
