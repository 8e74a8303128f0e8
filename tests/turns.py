"""Several pytest workers on one machine: a test that measures time has it to itself.

Two locks. Whoever wants to run passes the gate first, so that one that waits to be alone is not
overtaken for ever by those that share.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager


@contextmanager
def turn(folder, *, alone):
    """Hold the machine, for oneself or with the others who do not measure."""
    with (folder / "gate").open("w") as gate, (folder / "machine").open("w") as machine:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
