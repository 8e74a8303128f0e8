"""Seconds and memory of a piece of work in this process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

MIB = 2**20


class Meter:
    """Measures from `begin` to `end`; on CUDA both wait for the device."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.loaded = 0.0
        self.began = 0.0
        self.used = 0.0
        self.since = "begin"

    def begin(self) -> None:
        self.loaded = self._now()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        elif not _forget_peak():
            self.since = "process"
        self.start()

    def start(self) -> None:
        """The clock alone."""
        self._wait()
        self.used = time.process_time()
        self.began = time.perf_counter()

    def passed(self) -> float:
        """Seconds since the start."""
        self._wait()
        return time.perf_counter() - self.began

    def end(self) -> dict[str, Any]:
        """Seconds; cores, the processor seconds that this process had in each of them; and memory
        in MiB: the peak since `begin` (since the process began, where `peak_since` says so), and
        how far that is above what was held then. Resident memory of this process, on CUDA what
        torch has allocated.
        """
        seconds = self.passed()
        cores = (time.process_time() - self.used) / seconds
        peak = torch.cuda.max_memory_allocated() / MIB if self.cuda else _resident("VmHWM")
        memory = {"peak_mib": peak, "above_mib": peak - self.loaded, "peak_since": self.since}
        return {"seconds": seconds, "cores": cores} | memory

    def _now(self) -> float:
        return torch.cuda.memory_allocated() / MIB if self.cuda else _resident("VmRSS")

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


def _resident(name: str) -> float:
    """A line of /proc/self/status, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def _forget_peak() -> bool:
    """VmHWM starts again from what is resident now. False without leave to: it stays the
    process's.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
