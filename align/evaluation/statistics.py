"""How sure a measured accuracy is: Wilson's interval for one model, a paired test for two.

One answer a problem: Wilson, and McNemar's exact test. The interval of the difference is
Newcombe's, built from the two Wilson intervals; it is not the inversion of the exact test, which is
the stricter of the two where they disagree. Several answers a problem: those of one problem hang
together, so what counts is how the problems' shares spread, in Wilson's interval as in the paired
bootstrap. Torch-free; scipy.stats takes about a second to import, so the first call imports it and
not `import align.evaluation.statistics`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

RESAMPLES = 9_999
BATCH = 100  # resamples in memory at once


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """A share of `n` trials with its confidence interval; mean, low and high lie in [0, 1]."""

    successes: int
    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Share:
    """The mean of `n` problems' shares with its confidence interval; all lie in [0, 1]."""

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
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    low, high = _wilson(successes / n, n, confidence)
    return Proportion(successes=successes, n=n, mean=successes / n, low=low, high=high)


def mean_share(shares: Sequence[float], *, answers: int, confidence: float = 0.95) -> Share:
    """The mean over problems of each one's share, such as mean@n and pass@k, and its interval.

    answers: to all problems together. The problems are clusters: Wilson's interval with as many
    trials as would give the mean the variance that the shares' spread gives it, and no more than
    there are answers (Korn and Graubard 1998, Surv Methodol 24:193, without its t correction). With
    shares of 0 and 1 alone it is `proportion`. Raises ValueError for no shares, for one outside
    [0, 1], and for fewer answers than shares.
    """
    n = len(shares)
    if not n or answers < n or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"expected shares in [0, 1] and an answer to each, got {n} and {answers}")
    mean = min(1.0, math.fsum(shares) / n)
    variance = math.fsum((share - mean) ** 2 for share in shares) / n
    if mean in (0.0, 1.0):
        trials = float(n)
    else:
        trials = min(float(answers), n * mean * (1 - mean) / variance if variance else math.inf)
    low, high = _wilson(mean, trials, confidence)
    return Share(n=n, mean=mean, low=low, high=high)


def _wilson(mean: float, trials: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval, also for trials that are no whole number."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = mean + z * z / (2 * trials)
    half = z * math.sqrt(mean * (1 - mean) / trials + (z / (2 * trials)) ** 2)
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


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


def paired_means(
    before: Sequence[float], after: Sequence[float], *, confidence: float = 0.95, seed: int = 0
) -> Paired:
    """The paired bootstrap over problems (Efron and Tibshirani 1993, percentile interval).

    before, after: each problem's share of right answers, in the same order. Problems are drawn with
    replacement, each with its two shares. The p-value is twice the smaller share of resampled
    differences on either side of 0, the measured one counted among them; without any change it is
    1. `better` and `worse` count problems. Raises ValueError on lengths that differ or are below 2,
    and on shares outside [0, 1].
    """
    import numpy as np
    from scipy.stats import bootstrap

    if len(before) != len(after) or len(before) < 2:
        raise ValueError(
            f"a paired bootstrap needs equally many problems, two or more, got {len(before)} and "
            f"{len(after)}"
        )
    strange = [share for share in (*before, *after) if not 0 <= share <= 1]
    if strange:
        raise ValueError(f"a share lies in [0, 1], got {strange[0]!r}")
    changes = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    drawn = bootstrap(
        (changes,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    means = drawn.bootstrap_distribution
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Paired(
        n=len(changes),
        better=int((changes > 0).sum()),
        worse=int((changes < 0).sum()),
        difference=float(changes.mean()),
        low=float(drawn.confidence_interval.low),
        high=float(drawn.confidence_interval.high),
        p_value=min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1)),
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
