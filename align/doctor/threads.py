"""Cores that may be used, and what the environment says of threads."""

from __future__ import annotations

import os
from pathlib import Path

from align.doctor.asked import Asked
from align.terminal.findings import Findings

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def check_threads(asked: Asked, found: Findings) -> None:
    """OMP_NUM_THREADS against the cores, the container's share of them, and vLLM's binding."""
    before = len(found.found)
    cores = len(os.sched_getaffinity(0))
    share = quota(QUOTA)
    usable = cores if share is None else max(1, min(cores, round(share)))
    _omp(usable, found)
    if usable < cores and "OMP_NUM_THREADS" not in os.environ:
        said = (
            f"the container may use {share:.1f} of {cores} cores, and torch starts {cores} threads"
        )
        found.warning("threads", said, f"export OMP_NUM_THREADS={usable}")
    bound = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if bound != "nobind":
        found.warning(
            "threads",
            f"VLLM_CPU_OMP_THREADS_BIND={bound}: vLLM on a CPU binds the trainer's threads with "
            "its own, which made training ten times slower beside other work",
            "unset VLLM_CPU_OMP_THREADS_BIND",
        )
    if len(found.found) == before:
        said = f"{usable} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
        found.note("threads", said)


def _omp(usable: int, found: Findings) -> None:
    text = os.environ.get("OMP_NUM_THREADS")
    if text is None:
        return
    cure = f"export OMP_NUM_THREADS={usable}, or unset OMP_NUM_THREADS"
    parts = text.split(",")  # one number a nesting level
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        found.warning("threads", f"OMP_NUM_THREADS={text!r} is no number of threads", cure)
    elif int(parts[0]) > usable:
        said = f"OMP_NUM_THREADS={text} on {usable} cores: threads wait for one another"
        found.warning("threads", said, cure)


def quota(file: Path) -> float | None:
    """Cores' worth of time that the control group gives; None for all."""
    try:
        limit, period = file.read_text().split()
    except OSError:
        return None
    return int(limit) / int(period) if limit.isdecimal() else None
