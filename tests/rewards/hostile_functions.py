"""Reward functions of TRL's protocol that do what no reward should, in the process that calls
them.
"""

import asyncio
import io
import math
import os
import re
import sys
import time

import numpy as np
import torch

HELD = []


def values(completions, made):
    """What `made` says, for each completion."""
    return [made for _ in completions]


def raises(completions, **_):
    raise KeyError("no such thing")


def prints(completions, **_):
    print("HELLO")
    return values(completions, 1.0)


def forks(completions, **_):
    """Comes back twice."""
    if child := os.fork():
        os.waitpid(child, 0)
    return values(completions, 1.0)


def forks_and_raises(completions, **_):
    if child := os.fork():
        os.waitpid(child, 0)
        return values(completions, 1.0)
    raise RuntimeError("in the child")


def child_leaves(completions, **_):
    """A child that ends as it should, by its own `os._exit`."""
    child = os.fork()
    if not child:
        os._exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return values(completions, float(code))


def exits(completions, **_):
    sys.exit(3)


def leaves(completions, **_):
    os._exit(3)


def closes_its_output(completions, **_):
    with sys.stdout:
        sys.stdout.close()
    getattr(sys.stdout.buffer, "raw", sys.stdout.buffer).close()  # a file without a buffer has none
    sys.stdout.buffer.close()
    io.TextIOWrapper(sys.stdout.buffer).close()
    return values(completions, 1.0)


def goes_elsewhere(completions, **_):
    os.chdir("/")
    return values(completions, 1.0)


def seeds(completions, **_):
    """And wants neither gradients nor single precision."""
    torch.manual_seed(7)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    return values(completions, 1.0)


def empties(completions, **columns):
    made = values(completions, 1.0)
    for given in (completions, *columns.values()):
        given.clear()
    return made


def digs(completions, **_):
    return digs(completions)


def takes_all_at_once(completions, **_):
    return values(completions, float(len(bytearray(1 << 50))))


async def cancelled(completions, **_):
    raise asyncio.CancelledError


def panics(completions, **_):
    class Panic(BaseException):  # as of a library written in Rust
        pass

    raise Panic("at the disco")


class Mute(Exception):
    def __repr__(self):
        raise ValueError("no words")


def raises_without_words(completions, **_):
    raise Mute


def raises_at_length(completions, **_):
    raise ValueError("x" * 10**6)


def sleeps(completions, **_):
    time.sleep(600)


def sleeps_stubbornly(completions, **_):
    """Swallows whatever interrupts it, once."""
    try:
        time.sleep(600)
    except BaseException:
        time.sleep(600)


async def sleeps_in_a_coroutine(completions, **_):
    await asyncio.sleep(600)


def searches(completions, **_):
    re.match(r"(a+)+$", "a" * 60 + "b")


def reckons(completions, **_):
    return [9**9**9]


def holds_the_lock(completions, **_):
    sum(range(10**12))


def eats(completions, **_):
    """Takes memory bit by bit, and would never stop."""
    while len(HELD) < 400:
        HELD.append(bytearray(os.urandom(1 << 20)))
        time.sleep(0.01)
    return values(completions, 1.0)


def endless(completions, **_):
    for taken in range(1_000_000):
        assert taken < 10, "it was read on and on"
        yield 1.0


async def two_later(completions, **_):
    """One more than there should be, of one completion."""
    return [0.1, 5.0]


BAD_VALUES = {
    "nan": (math.nan, "returned nan"),
    "inf": (math.inf, "returned inf"),
    "-inf": (-math.inf, "returned -inf"),
    "huge": (10**400, "returned inf"),
    "large": (1e39, r"returned 1e\+39"),
    "list of one": (np.array([1.0]), r"not ndarray of shape \(1,\)"),
    "row of a tensor": (torch.tensor([1.0]), r"not Tensor of shape \(1,\)"),
    "text": ("1.0", "not str"),
    "bytes": (b"1", "not bytes"),
    "list": ([1.0], "not list"),
    "complex": (1j, "not complex"),
}
