"""How sure a measured accuracy is: Wilson's interval for one model, McNemar's exact test for two.

Both are scipy's binomial test seen from two sides. The interval of the difference is Newcombe's,
built from the two Wilson intervals; it is not the inversion of the exact test, which is the
stricter of the two where they disagree. Torch-free; scipy.stats takes about a second to import, so
the first call imports it and not `import align.statistics`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """A share of `n` trials with its confidence interval; mean, low and high lie in [0, 1]."""

    successes: int
    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two models on the same questions: what the second gained and lost, how likely by chance.

    `difference` is mean(after) − mean(before), in [−1, 1], with its confidence interval from `low`
    to `high`; `p_value` is two-sided; `n` is the number of questions.
    """

    n: int
    better: int
    worse: int
    difference: float
    low: float
    high: float
    p_value: float


def proportion(successes: int, n: int, *, confidence: float = 0.95) -> Proportion:
    """Wilson's score interval (Wilson 1927, JASA 22:209), without continuity correction.

    Raises ValueError where there is nothing to count or more successes than trials.
    """
    from scipy.stats import binomtest

    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return Proportion(
        successes=successes,
        n=n,
        mean=successes / n,
        low=float(interval.low),
        high=float(interval.high),
    )


def paired(before: Sequence[int], after: Sequence[int], *, confidence: float = 0.95) -> Paired:
    """McNemar's exact test (McNemar 1947) on the questions whose verdict changed.

    before, after: 0 or 1 for each question, in the same order. Under the null hypothesis a change
    is a gain or a loss with equal chance; without any change p is 1. The difference's interval is
    that of `_difference_interval`. Raises ValueError on lengths that differ, on empty input, and on
    verdicts other than 0 and 1.
    """
    from scipy.stats import binomtest

    if len(before) != len(after) or not before:
        raise ValueError(
            f"a paired test needs equally many verdicts, got {len(before)} and {len(after)}"
        )
    strange = [verdict for verdict in (*before, *after) if verdict not in (0, 1)]
    if strange:
        raise ValueError(f"a verdict is 0 or 1, got {strange[0]!r}")
    pairs = list(zip(before, after, strict=True))
    better = sum(b == 0 and a == 1 for b, a in pairs)
    worse = sum(b == 1 and a == 0 for b, a in pairs)
    changed = better + worse
    p_value = float(binomtest(better, changed).pvalue) if changed else 1.0
    both = sum(b == 1 and a == 1 for b, a in pairs)
    low, high = _difference_interval(
        both=both, better=better, worse=worse, n=len(pairs), confidence=confidence
    )
    return Paired(
        n=len(pairs),
        better=better,
        worse=worse,
        difference=(better - worse) / len(pairs),
        low=low,
        high=high,
        p_value=p_value,
    )


def _difference_interval(
    *, both: int, better: int, worse: int, n: int, confidence: float
) -> tuple[float, float]:
    """Newcombe's hybrid score interval of a paired difference (1998, Stat Med 17:2635, method 10).

    The distances from each share to its Wilson limits are combined as standard errors would be,
    with the correlation of the two verdicts. Unlike Wald's it has a width where no verdict changed
    and stays within [−1, 1].
    """
    after = proportion(both + better, n, confidence=confidence)
    before = proportion(both + worse, n, confidence=confidence)
    correlation = _correlation(
        both=both, better=better, worse=worse, neither=n - both - better - worse
    )
    difference = (better - worse) / n

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    return (
        difference - reach(after.mean - after.low, before.high - before.mean),
        difference + reach(after.high - after.mean, before.mean - before.low),
    )


def _correlation(*, both: int, better: int, worse: int, neither: int) -> float:
    """The φ coefficient of two verdicts, drawn towards 0 by Newcombe's continuity correction."""
    margins = (both + better) * (worse + neither) * (both + worse) * (better + neither)
    if margins == 0:
        return 0.0
    product = both * neither - better * worse
    half = (both + better + worse + neither) / 2
    return (max(product - half, 0) if product > 0 else product) / math.sqrt(margins)
