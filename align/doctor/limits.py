"""What the shell lets a process have: address space, open files, processes, size of a file."""

from __future__ import annotations

import resource

from align.doctor.asked import Asked
from align.doctor.memory import LEAST
from align.terminal.findings import Findings
from align.terminal.sizes import GIB, gib

FEW_FILES, FEWEST_FILES = 1024, 128
FEWEST_PROCESSES = 256
SMALLEST_FILE = 1 * GIB


def check_limits(asked: Asked, found: Findings) -> None:
    """Every limit that a run has been seen to hit."""
    before = len(found.found)
    _address_space(found)
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = f"ulimit -n {most if 0 < most < 65536 else 65536}"
    if _below(most, FEW_FILES):
        more = "docker run --ulimit nofile=65536, or `* - nofile 65536` in limits.conf"
    if _below(files, FEWEST_FILES):
        found.error("limits", f"{files} open files a process: torch and vLLM open more", more)
    elif _below(files, FEW_FILES):
        said = f"{files} open files a process: few for servers and several processes"
        found.warning("limits", said, more)
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if _below(processes, FEWEST_PROCESSES):
        said = f"{processes} processes and threads a user: too few for OpenMP and reward workers"
        found.warning("limits", said, "ulimit -u 4096")
    size = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if _below(size, SMALLEST_FILE):
        said = f"no file may be larger than {gib(size)}: checkpoints are cut off"
        found.error("limits", said, "ulimit -f unlimited")
    if len(found.found) == before:
        found.note("limits", f"{files} open files, address space and file size without a limit")


def _address_space(found: Findings) -> None:
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if _below(space, LEAST):
        said = f"ulimit -v leaves {gib(space)} of address space: too little for torch and a model"
        found.error("limits", said, "ulimit -v unlimited")
    elif space != resource.RLIM_INFINITY:
        said = (
            f"ulimit -v leaves {gib(space)} of address space; CUDA reserves far more than it uses"
        )
        found.warning("limits", said, "ulimit -v unlimited")


def _below(limit: int, wanted: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < wanted
