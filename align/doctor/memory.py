"""Memory: of the machine, of the group of processes this one belongs to, and shared."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from align.doctor.asked import Asked
from align.terminal.findings import Findings
from align.terminal.sizes import GIB, gib

LEAST, LITTLE = 1 * GIB, 6 * GIB  # torch and a tiny model; what `make demo` peaks at
SHARED = Path("/dev/shm")
LITTLE_SHARED = 1 * GIB  # Docker gives 64 MiB
CGROUP = Path("/sys/fs/cgroup")


def check_memory(asked: Asked, found: Findings) -> None:
    """RAM, swap, the control group's limit and /dev/shm."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    free, said = memory.available, f"{gib(memory.available)} of {gib(memory.total)} free"
    limit = group_limit(Path("/proc/self/cgroup"), CGROUP)
    if limit is not None and limit[0] < memory.total:
        free = min(free, limit[0] - limit[1])
        said = f"{gib(free)} free: the container's limit is {gib(limit[0])}"
    room(free, f"{said}, swap {gib(swap.free)}", found, limited=limit is not None)
    if SHARED.is_dir():
        shared_room(shutil.disk_usage(SHARED).free, found)


def room(free: int, said: str, found: Findings, *, limited: bool) -> None:
    """free: bytes that a run could use."""
    who = "start the container with more (docker run --memory 16g)" if limited else (
        "ps aux --sort=-rss | head; end what is not needed"
    )  # fmt: skip
    less = f"{who}; a run takes less with --compute.token-budget 2048"
    if free < LEAST:
        found.error("memory", said, who)
    elif free < LITTLE:
        found.warning("memory", f"{said}; the demo peaks at {gib(LITTLE)}", less)
    else:
        found.note("memory", said)


def shared_room(free: int, found: Findings) -> None:
    """NCCL and vLLM's processes talk through it."""
    said = f"/dev/shm has {gib(free)} free"
    if free < LITTLE_SHARED:
        cure = "docker run --shm-size=8g, or sudo mount -o remount,size=8g /dev/shm"
        found.warning("shared memory", f"{said}: little for several GPU processes", cure)
    else:
        found.note("shared memory", said)


def group_limit(membership: Path, root: Path) -> tuple[int, int] | None:
    """(limit, used) in bytes of the tightest control group above us, v2 or v1; None without one."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, names = root / path.lstrip("/"), ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            folder = root / "memory" / path.lstrip("/")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the path may be the host's; the root is then our own group.
        for each in (folder, *folder.parents):
            if each.is_relative_to(root) and (pair := _pair(each, names)):
                limits.append(pair)
    return min(limits, default=None)


def _pair(folder: Path, names: tuple[str, str]) -> tuple[int, int] | None:
    try:
        limit, used = ((folder / name).read_text().strip() for name in names)
    except OSError:
        return None
    return (int(limit), int(used)) if limit.isdecimal() and int(limit) < 2**60 else None
