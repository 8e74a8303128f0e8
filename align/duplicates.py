"""Near-duplicate rows: Jaccard similarity of word 3-grams, at any number of rows.

Two texts are alike where their sets of 3-grams (words and single signs of the text in lower case)
share at least `threshold` of their union; two rows are near-duplicates where their questions are
alike and their answers are. MinHash (Broder 1997) finds whom to compare with, exact sets decide, so
nothing is taken for a duplicate that is none. One at 0.8 is overlooked with a probability of
0.0013, at 0.9 of 2e-9; equal rows never. All hashes are fixed, so the verdicts are the same
everywhere.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable

import numpy as np

N = 3
BANDS, ROWS = 36, 8
_WORD = re.compile(r"\w+|[^\w\s]")
# Multiply-shift hashing: odd multipliers and offsets, drawn once and for all.
_DRAW = np.random.Generator(np.random.PCG64(20261120))
_FACTORS = _DRAW.integers(2**63, size=(2, BANDS * ROWS), dtype=np.uint64) | np.uint64(1)


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
        self.rows: list[tuple[frozenset[str], frozenset[str]]] = []
        self.buckets: dict[tuple[int, bytes], list[int]] = {}

    def is_new(self, question: str, answer: str) -> bool:
        """Whether no near-duplicate was new before; remembers the row, if so."""
        row = shingles(question), shingles(answer)
        # Where both parts are alike the two together are.
        keys = _keys([f"{part} {gram}" for part, grams in enumerate(row) for gram in grams])
        near = {at for key in keys for at in self.buckets.get(key, ())}
        if any(self._alike(row, self.rows[at]) for at in near):
            return False
        for key in keys:
            self.buckets.setdefault(key, []).append(len(self.rows))
        self.rows.append(row)
        return True

    def _alike(self, row: tuple[frozenset[str], ...], other: tuple[frozenset[str], ...]) -> bool:
        return all(jaccard(*pair) >= self.threshold for pair in zip(row, other, strict=True))


def _keys(grams: Iterable[str]) -> list[tuple[int, bytes]]:
    """One key a band: rows that share one are compared."""
    hashes = np.array([_hash(gram) for gram in grams], dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        mixed = hashes[:, None] * _FACTORS[0] + _FACTORS[1]
    least = (mixed >> np.uint64(32)).min(axis=0).astype(np.uint32).reshape(BANDS, ROWS)
    return [(band, row.tobytes()) for band, row in enumerate(least)]


def _hash(gram: str) -> int:
    text = gram.encode("utf-8", "replace")
    return zlib.crc32(text) << 32 | zlib.adler32(text)
