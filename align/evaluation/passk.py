"""What n answers to one problem say about k: pass@k, and the majority of k.

pass@k is the unbiased estimate of Chen et al. (2107.03374, section 2.1). Drawing k of n answers
over and over and averaging gives the same two numbers; both are summed up here exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb


def ks(n: int) -> tuple[int, ...]:
    """1, 2, 4, … and n itself."""
    return tuple(dict.fromkeys([*(1 << i for i in range(n.bit_length())), n]))


def pass_at(k: int, *, n: int, right: int) -> float:
    """Chance that k of n answers, drawn without replacement, hold a right one: 1 − C(n−c, k)/C(n,
    k).

    Raises ValueError unless 1 <= k <= n and 0 <= right <= n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass@{k} of {n} answers, {right} right: expected 1 <= k <= n >= right")
    return 1 - comb(n - right, k) / comb(n, k)


def majority_at(k: int, *, right: int, wrong: Sequence[int], silent: int = 0) -> float:
    """Chance that the right answer wins the vote of k answers drawn without replacement.

    right: how many of all answers are right; wrong: how many give each different wrong answer;
    silent: how many give none, and so cast no vote. A tie is broken by lot; a vote without votes is
    lost. With k = n it is the vote of all (self-consistency, 2203.11171, maj@n). Raises ValueError
    for a k that is not among 1..n and for negative counts.
    """
    n = right + sum(wrong) + silent
    if not 1 <= k <= n or min(right, silent, *wrong, 0) < 0:
        raise ValueError(f"maj@{k} of {right} right, {list(wrong)} wrong and {silent} silent")
    return _majority(k, right, tuple(sorted(wrong)), silent)


@lru_cache(maxsize=65536)
def _majority(k: int, right: int, wrong: tuple[int, ...], silent: int) -> float:
    n = right + sum(wrong) + silent
    won = sum(
        comb(right, votes) * _outvoted(k - votes, votes, wrong, silent)
        for votes in range(1, min(k, right) + 1)
    )
    return float(Fraction(won) / comb(n, k))


def _outvoted(k: int, votes: int, wrong: tuple[int, ...], silent: int) -> Fraction:
    """Ways to draw k more answers so that no wrong one has above `votes`; a draw with t of them at
    just `votes` counts 1/(t + 1).
    """
    # ways[drawn, tied] over the wrong answers looked at so far.
    ways = {(0, 0): 1}
    for size in wrong:
        further: dict[tuple[int, int], int] = {}
        for (drawn, tied), count in ways.items():
            for more in range(min(size, votes, k - drawn) + 1):
                key = (drawn + more, tied + (more == votes))
                further[key] = further.get(key, 0) + count * comb(size, more)
        ways = further
    shared: Counter[int] = Counter()
    for (drawn, tied), count in ways.items():
        shared[tied] += count * comb(silent, k - drawn)
    return sum((Fraction(count, tied + 1) for tied, count in shared.items()), Fraction())
