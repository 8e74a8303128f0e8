"""Newcombe's interval of a paired difference: published examples, symmetry, exact coverage."""

import math
from itertools import product

import pytest

from align.evaluation.statistics import paired


def verdicts(both: int, better: int, worse: int, neither: int) -> tuple[list[int], list[int]]:
    before = [1] * both + [0] * better + [1] * worse + [0] * neither
    after = [1] * both + [1] * better + [0] * worse + [0] * neither
    return before, after


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((36, 14, 0, 0), 0.1528, 0.4167)],
)
def test_newcombes_own_examples(cells: tuple[int, ...], low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17:2635, method 10."""
    test = paired(*verdicts(*cells))
    assert test.n == 50
    assert test.low == pytest.approx(low, abs=5e-5)
    assert test.high == pytest.approx(high, abs=5e-5)


def test_no_change_is_not_certainty() -> None:
    """Wald's interval would be [0, 0]; without any variation it is Wilson's of 0 of 54."""
    test = paired(*verdicts(54, 0, 0, 0))
    z = 1.959963984540054
    width = z * z / (54 + z * z)
    assert test.high == pytest.approx(width, abs=1e-12)
    assert test.low == pytest.approx(-width, abs=1e-12)


@pytest.mark.parametrize("cells", [(30, 9, 2, 7), (5, 0, 8, 3), (0, 4, 3, 0)])
def test_swapping_the_models_turns_the_interval_round(cells: tuple[int, ...]) -> None:
    before, after = verdicts(*cells)
    there, back = paired(before, after), paired(after, before)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert -1 <= there.low < there.difference < there.high <= 1


def test_confidence_is_that_of_both_limits() -> None:
    """Without a change the limits are Wilson's: z² / (n + z²), z being 2.5758 for 99 %."""
    test = paired(*verdicts(54, 0, 0, 0), confidence=0.99)
    width = 2.5758293035489004**2 / (54 + 2.5758293035489004**2)
    assert (test.low, test.high) == pytest.approx((-width, width), abs=1e-12)


@pytest.mark.parametrize("chances", [(0.5, 0.2, 0.1, 0.2), (0.3, 0.15, 0.15, 0.4)])
def test_it_covers_the_truth_as_often_as_it_says(chances: tuple[float, ...]) -> None:
    """Every outcome of 15 problems, weighted by its multinomial probability."""
    n, truth, covered = 15, chances[1] - chances[2], 0.0
    for both, better, worse in product(range(n + 1), repeat=3):
        neither = n - both - better - worse
        if neither < 0:
            continue
        cells = (both, better, worse, neither)
        test = paired(*verdicts(*cells))
        if test.low <= truth <= test.high:
            ways = math.factorial(n) / math.prod(math.factorial(cell) for cell in cells)
            covered += ways * math.prod(p**cell for p, cell in zip(chances, cells, strict=True))
    assert 0.94 < covered < 0.98
