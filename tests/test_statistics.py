"""Wilson's interval against its closed form, McNemar's test against the binomial sum."""

import math
import subprocess
import sys

import pytest

from align.statistics import paired, proportion


def wilson(k: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson (1927): centre (p + z²/2n) and half-width z·sqrt(p(1−p)/n + z²/4n²), over 1 + z²/n."""
    p = k / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


@pytest.mark.parametrize(("k", "n"), [(42, 100), (1, 20), (0, 10), (10, 10), (286, 500)])
def test_proportion_is_wilsons_interval(k: int, n: int) -> None:
    result = proportion(k, n)
    low, high = wilson(k, n)
    assert (result.successes, result.n, result.mean) == (k, n, k / n)
    assert result.low == pytest.approx(low, abs=1e-12)
    assert result.high == pytest.approx(high, abs=1e-12)


def test_half_of_gsm8k_is_known_to_2_7_points() -> None:
    result = proportion(660, 1319)
    assert (result.high - result.low) / 2 == pytest.approx(0.027, abs=5e-4)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_proportion_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {k} of {n}"):
        proportion(k, n)


def test_paired_counts_gains_and_losses_exactly() -> None:
    before = [0] * 9 + [1] * 2 + [1] * 5 + [0] * 4
    after = [1] * 9 + [0] * 2 + [1] * 5 + [0] * 4
    result = paired(before, after)
    # Two-sided: 2 · Σ_{i≤2} C(11, i) / 2^11 = 2 · (1 + 11 + 55) / 2048.
    assert (result.better, result.worse) == (9, 2)
    assert result.difference == pytest.approx(7 / 20)
    assert result.p_value == pytest.approx(2 * 67 / 2048, rel=1e-12)


def test_paired_has_a_direction() -> None:
    result = paired(before=[1, 1, 1, 0], after=[0, 0, 1, 0])
    assert (result.better, result.worse, result.difference) == (0, 2, -0.5)


def test_nothing_changed_is_no_evidence() -> None:
    result = paired([1, 0, 1], [1, 0, 1])
    assert (result.better, result.worse, result.difference, result.p_value) == (0, 0, 0.0, 1.0)


def test_paired_refuses_what_is_not_paired() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired([0, 1], [1])
    with pytest.raises(ValueError, match="got 0 and 0"):
        paired([], [])
    with pytest.raises(ValueError, match=r"a verdict is 0 or 1, got 0\.5"):
        paired([0, 1], [1, 0.5])  # type: ignore[list-item]


def test_import_is_light() -> None:
    code = "import sys, align.statistics; print({'torch', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
