"""Near-duplicate rows: Jaccard similarity of word 3-grams, at any number of rows.

Two texts are alike where their sets of 3-grams (words and single signs of the text in lower case)
share at least `threshold` of their union; two rows are near-duplicates where their questions are
alike and their answers are. MinHash (Broder 1997) finds whom to compare with, exact sets decide, so
nothing is taken for a duplicate that is none. One just at the threshold is overlooked with a
probability of at most 0.0014 (at 0.9, with a threshold of 0.8, of 2e-9); equal rows never. All
hashes are fixed, so the verdicts are the same everywhere.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable

import numpy as np

N = 3
HASHES = 288  # of a row, cut into bands
ROWS = 8  # hashes of a band, at most: more would spare few comparisons
OVERLOOKED = 0.0014
_WORD = re.compile(r"\w+|[^\w\s]")
# Multiply-shift hashing: odd multipliers and offsets, drawn once and for all.
_DRAW = np.random.Generator(np.random.PCG64(20261120))
_FACTORS = _DRAW.integers(2**63, size=(2, HASHES), dtype=np.uint64) | np.uint64(1)


def shingles(text: str) -> frozenset[str]:
    """The text's word 3-grams; of a shorter text, the text."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    if len(words) < N:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[i : i + N]) for i in range(len(words) - N + 1))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared over all."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


class Seen:
    """Rows seen so far."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.band = band_rows(threshold)
        self.rows: list[tuple[frozenset[str], frozenset[str]]] = []
        self.buckets: dict[tuple[int, bytes], list[int]] = {}

    def is_new(self, question: str, answer: str) -> bool:
        """Whether no near-duplicate was new before; remembers the row, if so."""
        row = shingles(question), shingles(answer)
        # Where both parts are alike the two together are.
        grams = [f"{part} {gram}" for part, grams in enumerate(row) for gram in grams]
        keys = _keys(grams, self.band)
        near = {at for key in keys for at in self.buckets.get(key, ())}
        if any(self._alike(row, self.rows[at]) for at in near):
            return False
        for key in keys:
            self.buckets.setdefault(key, []).append(len(self.rows))
        self.rows.append(row)
        return True

    def _alike(self, row: tuple[frozenset[str], ...], other: tuple[frozenset[str], ...]) -> bool:
        return all(jaccard(*pair) >= self.threshold for pair in zip(row, other, strict=True))


def band_rows(threshold: float) -> int:
    """Hashes a band: as many as overlook few enough of the pairs that are just alike.

    A band of r is shared with probability threshold**r. 0 where even single hashes overlook too
    many: the one band there is then shared by all rows, which are compared with each other.
    """
    enough = (
        rows
        for rows in range(ROWS, 0, -1)
        if (1 - threshold**rows) ** (HASHES // rows) <= OVERLOOKED
    )
    return next(enough, 0)


def _keys(grams: Iterable[str], rows: int) -> list[tuple[int, bytes]]:
    """One key a band of so many hashes: rows of data that share one are compared."""
    if not rows:
        return [(0, b"")]
    hashes = np.array([_hash(gram) for gram in grams], dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        mixed = hashes[:, None] * _FACTORS[0] + _FACTORS[1]
    least = (mixed >> np.uint64(32)).min(axis=0).astype(np.uint32)
    bands = least[: HASHES // rows * rows].reshape(-1, rows)
    return [(number, band.tobytes()) for number, band in enumerate(bands)]


def _hash(gram: str) -> int:
    text = gram.encode("utf-8", "replace")
    return zlib.crc32(text) << 32 | zlib.adler32(text)
