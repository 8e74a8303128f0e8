"""Whether freed memory is kept by the process: on a CPU, with glibc's allocator.

glibc gives large blocks that are freed back to the kernel at once, which fills them with zeros page
by page when the next pack asks for the same again. Kept, they are there. Elsewhere (macOS, Windows,
musl, a preloaded allocator such as jemalloc, GPU memory) nothing is changed.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Serve all blocks from the heap and never make it smaller. False where that is not to be had.

    For the rest of the process; memory use is then that of its largest moment.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(name, NEVER) for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
