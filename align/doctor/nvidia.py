"""What nvidia-smi says of GPUs and their driver, and who holds their memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from align.doctor.child import call

# Below these the runtime of that CUDA release does not start (NVIDIA, CUDA Compatibility, minor
# version compatibility).
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
FIELDS = "index,uuid,name,driver_version,memory.total,memory.free,compute_cap"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """total, free: MiB, None where the driver does not say."""

    index: int
    uuid: str
    name: str
    driver: str
    total: int | None
    free: int | None
    capability: str


@dataclass(frozen=True, kw_only=True)
class Nvidia:
    """missing: there is no nvidia-smi. said: what went wrong otherwise."""

    state: Literal["fine", "missing", "hangs", "fails"]
    gpus: tuple[Gpu, ...] = ()
    said: str = ""

    @property
    def driver(self) -> str:
        return self.gpus[0].driver if self.gpus else ""


def look(seconds: float) -> Nvidia:
    """Every GPU of the machine, CUDA_VISIBLE_DEVICES or not."""
    try:
        ended = call(
            ["nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"],
            seconds=seconds,
        )
    except FileNotFoundError:
        return Nvidia(state="missing")
    except OSError as error:
        return Nvidia(state="fails", said=str(error))
    if ended.code is None:
        return Nvidia(state="hangs", said=f"nvidia-smi does not answer within {seconds:.0f} s")
    if ended.code:
        return Nvidia(state="fails", said=f"nvidia-smi ends with {ended.code}: {ended.last}")
    try:
        gpus = tuple(_gpu(line) for line in ended.out.splitlines() if line.strip())
    except ValueError:
        return Nvidia(state="fails", said=f"nvidia-smi answers what is no table: {ended.last}")
    if not gpus:
        return Nvidia(state="fails", said=f"nvidia-smi lists no GPU: {ended.last}")
    return Nvidia(state="fine", gpus=gpus)


def holders(gpu: Gpu, seconds: float) -> list[str]:
    """`python 4711 (20480 MiB)` for each process on the GPU that can be seen from here."""
    query = "--query-compute-apps=gpu_uuid,pid,used_memory"
    try:
        ended = call(["nvidia-smi", query, "--format=csv,noheader,nounits"], seconds=seconds)
    except OSError:
        return []
    rows = [line.split(", ") for line in ended.out.splitlines()]
    return [
        f"{name_of(int(pid))} {pid} ({used} MiB)"
        for uuid, pid, used in (row for row in rows if len(row) == 3 and row[1].isdecimal())
        if uuid == gpu.uuid
    ]


def visible(gpus: int) -> int:
    """How many of so many GPUs a process started here may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return gpus
    listed = [each.strip() for each in chosen.split(",") if each.strip()]
    # CUDA takes the list up to the first one that is not there.
    known = next((i for i, e in enumerate(listed) if _absent(e, gpus)), len(listed))
    return min(known, gpus)


def devices() -> bool:
    """Whether the kernel shows a GPU, which also holds where nvidia-smi is missing."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def name_of(pid: int) -> str:
    """The process's name, or what stands for it."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "process"


def numbers(version: str) -> tuple[int, ...]:
    """`580.65.06` as (580, 65, 6)."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _absent(entry: str, gpus: int) -> bool:
    return entry.startswith("-") or (entry.isdecimal() and int(entry) >= gpus)


def _gpu(line: str) -> Gpu:
    """One line of the table. Raises ValueError where it is none."""
    index, uuid, name, driver, total, free, capability = line.split(", ")
    if not numbers(driver):
        raise ValueError(line)
    return Gpu(
        index=int(index),
        uuid=uuid,
        name=name,
        driver=driver,
        total=int(total) if total.isdecimal() else None,
        free=int(free) if free.isdecimal() else None,
        capability=capability.strip(),
    )
