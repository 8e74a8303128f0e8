"""Bytes in words."""

from __future__ import annotations

GIB = 2**30


def gib(size: float) -> str:
    """GiB, or MiB of what is less than a tenth of one."""
    return f"{size / GIB:.1f} GiB" if abs(size) >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"
