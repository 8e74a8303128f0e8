"""Shares and their differences as the report reads them from a file and puts them into words."""

from typing import Protocol

from align.evaluation import statistics
from align.evaluation.statistics import Paired, Proportion

SIGNIFICANT = 0.05  # a difference with a smaller p-value is called one
RIGHT = ("strict", "lenient")  # shares of right answers


def counted(successes: object, n: object) -> Proportion | None:
    """The share with its Wilson interval, made anew from the counts; None for impossible ones."""
    if not isinstance(successes, int) or not isinstance(n, int) or not 0 <= successes <= n or n < 1:
        return None
    return statistics.proportion(successes, n)


class Interval(Protocol):
    """A mean with its interval, all in [0, 1]."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def percent(share: Interval | None) -> str:
    """`57.2 % [52.8, 61.5]`, or a dash."""
    if share is None:
        return "–"
    return f"{100 * share.mean:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def points(test: Paired) -> str:
    """`+15.2 points`, with a real minus sign."""
    return f"{_signed(test.difference)} points"


def interval(test: Paired) -> str:
    """`+11.0 to +19.3`: the 95 % interval of the difference, in points."""
    return f"{_signed(test.low)} to {_signed(test.high)}"


def p_value(test: Paired) -> str:
    """`p = 0.034`; very small ones keep their order of magnitude."""
    return f"p\u00a0=\u00a0{test.p_value:.2g}".replace("-", "−")


def verdict(test: Paired, metric: str) -> str:
    """What the exact test says. Too little evidence of a difference is not evidence of none.

    Of a share that is not one of right answers more need not be better: it is called higher.
    """
    if test.p_value >= SIGNIFICANT:
        return "no significant difference"
    more, less = ("better", "worse") if metric in RIGHT else ("higher", "lower")
    return f"significantly {more if test.difference > 0 else less}"


def _signed(difference: float) -> str:
    # Adding 0.0 makes of a rounded −0.0 a plain zero.
    return f"{round(100 * difference, 1) + 0.0:+.1f}".replace("-", "−")
