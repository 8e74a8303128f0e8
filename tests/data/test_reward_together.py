"""Rewards that are right for a single completion and wrong for a batch, or right by chance."""

import random
import time

import pytest

from data import reward_rows
from data.reward_probes import check_ends, check_varies
from data.reward_rows import check_every_row
from data.reward_scores import RewardCheckError
from data.reward_together import check_together
from rewards import PerSample, Score, WeightedSum, from_trl

ROWS = [{"prompt": f"{i}?", "solution": str(i)} for i in range(10)]


def lengths(completions):
    return [len(text) / 10 for text in completions]


def reversed_in_place(completions, **_):
    completions.reverse()
    return lengths(completions)


WRONG = {
    "sorted": (lambda completions, **_: sorted(lengths(completions)), "in another order"),
    "reversed": (reversed_in_place, "in another order"),
    "the first": (lambda completions, **_: lengths(completions)[:1] * len(completions), "the same"),
    "the mean": (
        lambda completions, **_: [sum(lengths(completions)) / len(completions)] * len(completions),
        "the same value",
    ),
    "chance": (lambda completions, **_: [random.random() for _ in completions], "chance"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_reward_that_is_wrong_for_a_batch_is_refused(name):
    function, said = WRONG[name]
    with pytest.raises(RewardCheckError, match=said):
        check_together(ROWS, from_trl(function))


class Novelty:
    def __init__(self):
        self.seen = 0

    def __call__(self, completions, **_):
        self.seen += 1
        return [self.seen + value for value in lengths(completions)]


def to_the_mean(completions, **_):
    values = lengths(completions)
    return [value - sum(values) / len(values) for value in values]


def with_noise(share):
    def judge(completions, **_):
        return [value + share * random.random() for value in lengths(completions)]

    return judge


def diversity(completions, **_):
    return [
        sum(one != other for other in completions) / max(len(completions) - 1, 1)
        for one in completions
    ]


GOOD = {
    "lengths": (lambda completions, **_: lengths(completions), ""),
    "none": (lambda completions, **_: [None for _ in completions], ""),
    "zeros": (lambda completions, **_: [0.0 for _ in completions], ""),
    "a network's rounding": (with_noise(1e-3), ""),
    "a judge's noise": (with_noise(2.0), "chance"),
    "what remembers": (Novelty(), "remembers"),
    "what wants variety": (diversity, "are scored together"),
    "what compares": (to_the_mean, "are scored together"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_may_be_meant_is_at_most_doubted(name):
    function, said = GOOD[name]
    doubt = check_together(ROWS, from_trl(function))
    assert said in doubt and bool(doubt) == bool(said)


def test_chance_that_reads_a_column_may_wait_for_something_rare():
    def judge(completions, solution, **_):
        return [random.random() for _ in solution]

    assert "chance" in check_together(ROWS, from_trl(judge))


def test_a_value_of_the_row_is_no_reward():
    def judge(completions, prompts, **_):
        return [sum(map(ord, prompt)) / 100 for prompt in prompts]

    with pytest.raises(RewardCheckError, match=r"one value .* does not look at the text"):
        check_varies(ROWS, from_trl(judge))


def test_a_row_on_which_it_raises_is_found_among_many():
    rows = [{"prompt": f"{i}?", "level": i - 700} for i in range(900)]
    reward = from_trl(lambda completions, level, **_: [1 / one for one in level])
    with pytest.raises(RewardCheckError, match=r"^701st row: .*ZeroDivisionError.*, line "):
        check_every_row(rows, WeightedSum(((1.0, reward),)))
    check_every_row(rows[:700], reward)


def test_a_row_on_which_it_hangs_is_found_in_time(monkeypatch):
    monkeypatch.setattr(reward_rows, "PATIENCE", 1.0)
    monkeypatch.setattr(reward_rows, "EACH", 0.2)
    rows = [{"prompt": f"{i}?", "level": i} for i in range(40)]

    def slow(completions, level, **_):
        time.sleep(600 if 30 in level else 0)
        return lengths(completions)

    before = time.monotonic()
    with pytest.raises(RewardCheckError, match=r"^31st row: .*has not answered for 1 s"):
        check_every_row(rows, from_trl(slow))
    assert time.monotonic() - before < 12


def test_what_remembers_is_asked_aside():
    reward = from_trl(Novelty())
    check_every_row(ROWS, reward)
    assert reward.fn.seen == 0


def test_a_function_sees_the_same_rows_on_any_machine():
    seen = []

    def judge(completions, level, **_):
        seen.extend(level)
        return lengths(completions)

    rows = [{"prompt": f"{i}?", "level": i} for i in range(3000)]
    check_every_row(rows, from_trl(judge))
    assert len(set(seen)) == len(seen) == reward_rows.FIXED


def test_limits_that_end_every_completion_are_named_after_three():
    def judge(text):
        while True:
            pass

    with pytest.raises(RewardCheckError, match=r"ended in timeout on each of 3 completions"):
        check_ends(ROWS, PerSample(fn=judge, seconds=0.2))


def test_a_reward_of_ones_own_with_too_few_scores_is_named():
    class Few(PerSample):
        def score(self, completions, **_):
            return [Score(value=1.0)]

    with pytest.raises(RewardCheckError, match="gave 1 scores for 7 completions"):
        check_varies(ROWS, Few(fn=len))
