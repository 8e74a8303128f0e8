"""What a process says when others of its run are gone or hang: a collective operation breaks.

The launcher (torchrun, accelerate launch) names the process that ended first, with its exit code or
signal, in the table that it prints last; the survivors say here what became of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

LINGER = 2.0  # seconds; a launcher looks ten times a second, and calls the first it sees the cause


class LostProcessError(RuntimeError):
    """Other processes of the run are gone, or did not answer in time."""


@contextmanager
def noticed(rank: int, *, patience: float) -> Iterator[None]:
    """Inside, a collective operation that breaks raises LostProcessError, after a moment in which
    the launcher sees who broke it.
    """
    try:
        yield
    except RuntimeError as error:
        if (said := broken(error)) is None:
            raise
        sys.stdout.flush()
        time.sleep(LINGER)
        late = "timed out" in said.lower() or "timeout" in said.lower()
        what = f"did not answer within {patience:g} s" if late else "is gone"
        longer = (
            f", and with --compute.patience above {patience:g} if it was only slow: more than the "
            "longest sampling or scoring"
        )
        raise LostProcessError(
            f"rank {rank}: another process of this run {what} ({said}); continue with --resume, "
            f"from the last checkpoint if there is one{longer if late else ''}"
        ) from error


def broken(error: RuntimeError) -> str | None:
    """The first line of what a collective operation broke with; None for any other error."""
    said = str(error).strip().partition("\n")[0].partition(". This is typically")[0]
    return said if isinstance(error, dist.DistError) or "gloo/" in said else None
