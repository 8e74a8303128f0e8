"""Wilson's interval against scipy and its closed form, McNemar's test against the binomial sum, the
bootstrap against one written out.
"""

import math
import random
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binomtest

from align.evaluation.statistics import mean_share, paired, paired_means, proportion


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


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_proportion_is_scipys(confidence: float) -> None:
    for k, n in [(0, 1), (1, 1), (3, 7), (1319, 1319), (660, 1319)]:
        expected = binomtest(k, n).proportion_ci(confidence_level=confidence, method="wilson")
        result = proportion(k, n, confidence=confidence)
        assert result.low == pytest.approx(expected.low, abs=1e-12)
        assert result.high == pytest.approx(expected.high, abs=1e-12)


def test_half_of_gsm8k_is_known_to_2_7_points() -> None:
    result = proportion(660, 1319)
    assert (result.high - result.low) / 2 == pytest.approx(0.027, abs=5e-4)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_proportion_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {k} of {n}"):
        proportion(k, n)


def test_one_answer_a_problem_gives_wilsons_interval() -> None:
    for right in (0, 3, 10):
        share = mean_share([1.0] * right + [0.0] * (10 - right), answers=10)
        expected = proportion(right, 10)
        assert (share.n, share.mean) == (10, right / 10)
        assert share.low == pytest.approx(expected.low, abs=1e-12)
        assert share.high == pytest.approx(expected.high, abs=1e-12)


def test_answers_that_agree_within_problems_are_worth_one_each() -> None:
    """Eight answers to a problem, all alike, tell no more than one does."""
    alike = mean_share([1.0] * 30 + [0.0] * 20, answers=400)
    assert alike.low == pytest.approx(wilson(30, 50)[0], abs=1e-12)
    never = mean_share([0.0] * 50, answers=400)
    assert (never.low, never.high) == pytest.approx(wilson(0, 50), abs=1e-12)
    flat = mean_share([0.5] * 50, answers=400)
    assert (flat.low, flat.high) == pytest.approx(wilson(200, 400), abs=1e-12)
    # Shares .25 and .75: variance 1/16, a quarter of p(1−p), so 40 problems count as 160 trials.
    between = mean_share([0.25, 0.75] * 20, answers=400)
    assert (between.low, between.high) == pytest.approx(wilson(80, 160), abs=1e-12)


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says() -> None:
    """Problems of all difficulties, uniform on [0, 1], four answers each: the true mean is 1/2."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        shares = rng.binomial(4, rng.random(60)) / 4
        share = mean_share(shares.tolist(), answers=240)
        held += share.low <= 0.5 <= share.high
    assert 0.935 < held / 2000 < 0.965  # three standard errors of 2,000 draws


def test_what_has_no_mean_is_refused() -> None:
    for shares, answers in (([], 0), ([0.5, 1.2], 4), ([0.5, -0.1], 4), ([0.5, 0.5], 1)):
        with pytest.raises(ValueError, match="shares in"):
            mean_share(shares, answers=answers)


def test_the_paired_bootstrap_is_the_one_written_out() -> None:
    rng = random.Random(0)
    before = [rng.randint(0, 4) / 4 for _ in range(80)]
    after = [min(1.0, share + rng.choice([0, 0, 0.25, -0.25, 0.5])) for share in before]
    after = [max(0.0, share) for share in after]
    result = paired_means(before, after)
    changes = np.array(after) - np.array(before)
    drawn = np.random.default_rng(1).integers(0, 80, (40_000, 80))
    means = changes[drawn].mean(axis=1)
    assert result.difference == pytest.approx(changes.mean(), abs=1e-12)
    assert (result.better, result.worse, result.n) == ((changes > 0).sum(), (changes < 0).sum(), 80)
    low, high = np.quantile(means, [0.025, 0.975])
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.004)
    assert result.p_value == pytest.approx(
        2 * min((means <= 0).mean(), (means >= 0).mean()), abs=5e-3
    )
    assert paired_means(before, after) == result
    assert paired_means(before, after, seed=1) != result


def test_the_paired_bootstrap_knows_direction_pairing_and_nothing() -> None:
    before, after = [0.0, 0.25, 0.5] * 20, [0.25, 0.5, 0.75] * 20
    gain = paired_means(before, after)  # every problem gains a quarter, so there is no doubt
    assert (gain.low, gain.difference, gain.high) == pytest.approx((0.25, 0.25, 0.25), abs=1e-12)
    assert gain.p_value == pytest.approx(2 / 10_000, abs=1e-12)
    assert paired_means(after, before).difference == pytest.approx(-0.25, abs=1e-12)
    same = paired_means(before, before)
    assert (same.difference, same.better, same.worse, same.p_value) == (0.0, 0, 0, 1.0)


def test_the_paired_bootstrap_refuses_what_is_not_paired() -> None:
    for before, after, said in (([0.1], [0.2], "got 1 and 1"), ([0, 1], [1], "got 2 and 1")):
        with pytest.raises(ValueError, match=said):
            paired_means(before, after)
    with pytest.raises(ValueError, match=r"got 1\.5"):
        paired_means([0, 1], [1, 1.5])


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
    code = "import sys, align.evaluation.statistics; print({'torch', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
