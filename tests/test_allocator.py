"""Freed memory that stays with the process: fewer page faults for the same work."""

import platform
import subprocess
import sys

import pytest
import runs

from align.training import allocator

WORK = """
import ctypes, resource, sys
from align.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for _ in range(10):
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_faulted_in_once():
    """Ten times 64 MiB, in pages of 4 KiB or larger ones."""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", WORK, how], capture_output=True, check=True,
                                text=True).stdout)
        for how in ("keep", "plain")
    }  # fmt: skip
    pages = 2**26 // 4096
    assert faults["plain"] - faults["keep"] > 5 * pages


@pytest.mark.parametrize("hurt", [None, ["scarce.other_libc"]])
def test_where_it_cannot_be_had_a_run_says_so(hurt, tmp_path):
    flags = "--recipe tiny --model random:recipes/tiny_model --compute.keep-memory True --check"
    log = tmp_path / "log"
    answer = runs.nursery().run("sft", [*flags.split(), "--out", tmp_path], log=log, hurt=hurt)
    assert answer["codes"] == [0], log.read_text()
    said = "--compute.keep-memory does nothing here" in log.read_text()
    assert said == (hurt is not None or platform.libc_ver()[0] != "glibc")


HOLES = """
import sys
from pathlib import Path
import torch
from align.training.allocator import trim
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
blocks = [torch.ones(2**14) for _ in range(4096)]  # 64 KiB each, from the heap
kept = blocks[::2]
before = resident()
del blocks
if sys.argv[1] == "trim":
    trim()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
@pytest.mark.parametrize(("how", "least", "most"), [("trim", 100, 140), ("plain", -1, 20)])
def test_memory_between_blocks_in_use_is_given_back(how, least, most):
    """Every second of 4,096 blocks of 64 KiB: 128 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", HOLES, how], capture_output=True, check=True, text=True
    )
    assert least < float(done.stdout) < most


def test_what_is_kept_is_not_given_back_in_the_course_of_a_run(monkeypatch):
    given = []
    monkeypatch.setattr(allocator, "trim", lambda: given.append(1))
    allocator.trim_unless_kept()
    assert given == [1]
    monkeypatch.setattr(allocator, "_keeps", True)
    allocator.trim_unless_kept()
    assert given == [1]
