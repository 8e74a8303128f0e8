"""pass@k and maj@k against every draw of k answers, one by one."""

from fractions import Fraction
from itertools import combinations
from math import prod

import pytest

from align.evaluation.passk import ks, majority_at, pass_at


def test_ks_are_powers_of_two_and_n():
    assert [ks(n) for n in (1, 2, 6, 8, 9)] == [
        (1,),
        (1, 2),
        (1, 2, 4, 6),
        (1, 2, 4, 8),
        (1, 2, 4, 8, 9),
    ]


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(n):
    for right in range(n + 1):
        answers = [True] * right + [False] * (n - right)
        for k in range(1, n + 1):
            draws = list(combinations(answers, k))
            assert pass_at(k, n=n, right=right) == pytest.approx(
                sum(map(any, draws)) / len(draws), abs=1e-12
            )


def test_pass_at_k_is_the_product_of_chen_et_al():
    """2107.03374, figure 3: 1 − Π over i in n−c+1..n of (1 − k/i)."""
    for k in (1, 10, 100):
        expected = 1 - prod(1 - k / i for i in range(200 - 3 + 1, 201))
        assert pass_at(k, n=200, right=3) == pytest.approx(expected, abs=1e-12)


def counted(answers, k):
    """The share of draws that the right answer wins, a tie of t shared among t."""
    won, draws = Fraction(), 0
    for drawn in combinations(answers, k):
        draws += 1
        cast = [answer for answer in drawn if answer is not None]
        most = max((cast.count(answer) for answer in cast), default=0)
        leading = {answer for answer in cast if cast.count(answer) == most}
        won += Fraction("right" in leading, len(leading) or 1)
    return float(won / draws)


@pytest.mark.parametrize(
    ("right", "wrong", "silent"),
    [(3, (2, 2, 1), 0), (2, (3,), 3), (0, (2, 1), 1), (4, (), 0), (1, (1, 1, 1, 1), 2), (0, (), 3)],
)
def test_majority_is_the_share_of_draws_that_the_right_answer_wins(right, wrong, silent):
    answers = ["right"] * right + [None] * silent
    answers += [f"wrong {i}" for i, count in enumerate(wrong) for _ in range(count)]
    for k in range(1, len(answers) + 1):
        found = majority_at(k, right=right, wrong=wrong, silent=silent)
        assert found == pytest.approx(counted(answers, k), abs=1e-12), k


def test_a_majority_among_many_answers():
    """All answers differ: of the k drawn each wins with the same chance, so it is k/n · 1/k."""
    found = majority_at(600, right=1, wrong=[1] * 1200)
    assert found == pytest.approx(1 / 1201, rel=1e-12)


def test_a_majority_of_one_is_the_mean():
    assert majority_at(1, right=3, wrong=[2, 1], silent=2) == pytest.approx(3 / 8, abs=1e-15)


def test_what_cannot_be_is_refused():
    for k, n, right in ((0, 4, 1), (5, 4, 1), (2, 4, 5), (2, 4, -1)):
        with pytest.raises(ValueError, match=rf"pass@{k} of {n}"):
            pass_at(k, n=n, right=right)
    for k, right, wrong in ((0, 1, [1]), (3, 1, [1]), (1, -1, [3]), (1, 2, [-1])):
        with pytest.raises(ValueError, match=f"maj@{k}"):
            majority_at(k, right=right, wrong=wrong)
