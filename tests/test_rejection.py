"""Which samples rejection sampling keeps, on hand-made lines with the verdicts written beside."""

import itertools

import pytest

from align.config import Keep
from align.evaluation import rejection
from align.evaluation.rejection import (
    Selection,
    counts,
    general_count,
    general_rows,
    kept_rows,
    mixed,
)

GOOD = "<think>Two and three make five.</think>\n<answer>5</answer>"
ABOUT = {"stage": "sample", "data": "made"}


def sample(text=GOOD, **more):
    made = {"text": text, "length": len(text), "truncated": False, "seed": 1, "reward": 1.0}
    return made | {"correct": 1.0, "parts": {}, "outcome": "ok"} | more


def line(*samples, row=0, prompt="What is 2 + 3?", solution="5"):
    chat = [{"role": "user", "content": prompt}]
    return {"row": row, "prompt": chat, "solution": solution, "samples": list(samples)}


def choose(*samples, **keep):
    return Selection(Keep(**keep)).choose(line(*samples))


@pytest.mark.parametrize(
    ("one", "keep", "reason"),
    [
        (sample(), {}, None),
        (sample(truncated=True), {}, "truncated"),
        (sample(length=9), {"max_tokens": 8}, "overlong"),
        (sample(length=8), {"max_tokens": 8}, None),
        (sample(" \n"), {}, "empty"),
        (sample(unclean="no answer"), {}, "unclean"),
        (sample(correct=None, outcome="unscorable", reward=0.5), {}, "unjudged"),
        (sample(correct=0.0, outcome="timeout", reward=0.0), {}, "unjudged"),
        (sample(correct=None, reward=None), {}, "unjudged"),
        (sample(correct=0.0, reward=5.0), {}, "wrong"),
        # Right is right, whatever the shaped parts took away.
        (sample(reward=-3.0), {}, None),
        (sample(correct=None, reward=0.49), {"min_reward": 0.5}, "low_reward"),
        (sample(correct=None, reward=0.5), {"min_reward": 0.5}, None),
        (sample("The answer is 5"), {"format": True}, "format"),
        (sample("The answer is 5"), {}, None),
        (sample("<think>Two and 三</think><answer>5</answer>"), {}, "language"),
        (sample("<think>Two and 三</think><answer>5</answer>"), {"language": ""}, None),
        # 6 of 7 letters are Latin.
        (sample("<think>Two and 三</think>"), {"language_share": 6 / 7}, None),
        (sample("<think>二加三</think><answer>5</answer>"), {"language": "zh"}, None),
        (sample("<think>2 + 3 = 5</think><answer>5</answer>"), {}, None),
        # 9 trigrams of one word, 1 of them distinct: 8/9 repeat.
        (sample("so " * 11), {"repetition": 0.88}, "repetition"),
        (sample("so " * 11), {"repetition": 0.89}, None),
    ],
)
def test_one_reason_a_sample(one, keep, reason):
    assert choose(one, **keep) == [reason]


def test_the_first_reason_is_the_one_counted():
    bad = sample("so " * 11, truncated=True, correct=0.0)
    assert choose(bad) == ["truncated"]
    assert choose(bad | {"truncated": False}) == ["wrong"]


A, B, C = (
    sample("one way to see it is to count from two", length=9, reward=0.5),
    sample("other people would draw five dots and look", length=7, reward=0.9),
    sample("a third method puts fingers up, as children do", length=7, reward=0.5),
)


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ({}, ["quota", None, "quota"]),  # B and C are as short: the first
        ({"per_prompt": 2}, ["quota", None, None]),
        ({"per_prompt": 3}, [None, None, None]),
        ({"take": "best"}, ["quota", None, "quota"]),
        ({"take": "best", "per_prompt": 2}, ["quota", None, None]),  # then C, the shorter
    ],
)
def test_the_shortest_or_best_of_a_prompt(keep, expected):
    assert choose(A, B, C, **keep) == expected


def test_best_goes_before_shortest():
    assert choose(A | {"reward": 1.5}, B, C, take="best") == [None, "quota", "quota"]
    assert choose(A | {"reward": 1.5}, B, C) == ["quota", None, "quota"]


def test_near_duplicates_of_a_prompt_are_dropped_the_shorter_one_stays():
    """14 words are 12 trigrams; another last word leaves 11 of 13: 0.846."""
    text = "we add two and three and so we get five which is the sum"
    other = text.removesuffix("sum") + "total"
    pair = sample(text, length=20), sample(other, length=15)
    assert choose(*pair, per_prompt=2) == ["duplicate", None]
    assert choose(*pair, per_prompt=2, duplicates=0.85) == [None, None]
    assert choose(sample(text), sample(text.upper() + " "), per_prompt=2) == [None, "duplicate"]


def test_near_duplicates_over_the_data_set_need_both_question_and_answer_alike():
    selection = Selection(Keep())
    assert selection.choose(line(sample())) == [None]
    assert selection.choose(line(sample(), row=1)) == ["duplicate"]
    assert selection.choose(line(sample(), row=2, prompt="what is 2 + 3 ?")) == ["duplicate"]
    assert selection.choose(line(sample(), row=3, prompt="What is 3 + 2?")) == [None]
    assert selection.choose(line(A, row=4)) == [None]


def test_a_rejected_sample_makes_no_duplicates():
    selection = Selection(Keep())
    assert selection.choose(line(sample(correct=0.0))) == ["wrong"]
    assert selection.choose(line(sample(), row=1)) == [None]


def test_counts_and_advice():
    reasons = [[None, "wrong", "wrong"], ["truncated", "quota", None]]
    assert counts(reasons) == {"kept": 2, "truncated": 1, "wrong": 2, "quota": 1}
    assert list(counts(reasons)) == ["kept", "truncated", "wrong", "quota"]
    said = rejection.advice({"truncated": 1, "wrong": 20})
    assert said.startswith("20 wrong: draw more --samples")
    assert said.endswith("1 truncated: raise --sampling.max-tokens")


def test_rows_hold_the_dialogue_the_solution_and_where_they_come_from():
    (row,) = kept_rows(line(sample(), sample(seed=7), row=4), ["quota", None], ABOUT)
    assert row["messages"] == [
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": GOOD},
    ]
    assert row["solution"] == "5"
    assert row["provenance"] == ABOUT | {
        "row": 4, "sample": 1, "seed": 7, "reward": 1.0, "length": len(GOOD),
    }  # fmt: skip


def test_turns_of_others_are_not_trained():
    """As `messages` every assistant turn would be."""
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    (row,) = kept_rows(line(sample()) | {"prompt": turns}, [None], ABOUT)
    assert row["prompt"] == turns
    assert row["completion"] == [{"role": "assistant", "content": GOOD}]
    (row,) = kept_rows(line(sample()) | {"prompt": "2 + 3 ="}, [None], ABOUT)
    assert (row["prompt"], row["completion"]) == ("2 + 3 =", GOOD)


@pytest.mark.parametrize(
    ("kept", "share", "general"), [(600, 0.25, 200), (3, 0.5, 3), (10, 0.1, 1), (7, 0.0, 0)]
)
def test_the_general_share_is_of_all_rows(kept, share, general):
    assert general_count(kept, share) == general
    assert general / (kept + general) == pytest.approx(share, abs=0.5 / (kept + general))


def test_general_rows_come_in_the_same_columns_drawn_by_the_seed():
    user, answer = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}
    rows = [
        {"messages": [user, answer], "prompt": None},
        {"prompt": [user], "completion": [answer], "solution": "!"},
        {"prompt": "?", "completion": "!"},
    ]
    made = general_rows(rows, 3, ABOUT, seed=0)
    by_row = {row["provenance"]["row"]: row for row in made}
    assert by_row[0]["messages"] == by_row[1]["messages"] == [user, answer]
    assert (by_row[2]["prompt"], by_row[2]["completion"]) == ("?", "!")
    assert [by_row[i]["solution"] for i in range(3)] == [None, "!", None]
    assert "prompt" not in by_row[0]
    assert general_rows(rows, 2, ABOUT, seed=0) == made[:2] == general_rows(rows, 2, ABOUT, seed=0)
    many = [rows[0]] * 50
    assert general_rows(many, 9, ABOUT, seed=0) != general_rows(many, 9, ABOUT, seed=1)


def test_the_fewer_are_spread_among_the_more():
    assert mixed("aaaaaa", "gg") == list("aagaaaga") or mixed("aaaaaa", "gg") == list("agaaaaga")
    assert mixed("ab", "") == ["a", "b"]
    assert [row for row in mixed(range(90), "g" * 10) if row != "g"] == [*range(90)]
    places = [i for i, row in enumerate(mixed(range(90), "g" * 10)) if row == "g"]
    assert {b - a for a, b in itertools.pairwise(places)} == {10}
