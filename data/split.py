"""Which side of train and test a generated problem falls on, decided by its content alone.

A problem is hashed and one in `TEST_ONE_IN` is a test problem, for every seed, size and setting. So
no train problem can ever be a test problem, whatever two runs ask for.
"""

from __future__ import annotations

import hashlib

from data.rows import DataError

TEST_ONE_IN = 5
SIDES = ("train", "test")


def side(text: str) -> str:
    """`"train"` or `"test"`, by the hash of the text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_ONE_IN == 0 else "train"


def check_side(split: str, name: str) -> None:
    """Raises DataError unless the split is one that a generator has."""
    if split not in SIDES:
        raise DataError(f"{name} has the splits train and test, not {split!r}")
