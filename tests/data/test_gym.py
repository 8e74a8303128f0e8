import json

import pytest

from data import DataError, ReasoningGym
from data.validate import check_rows

pytest.importorskip("reasoning_gym")


def questions(**fields):
    return [row["prompt"][0]["content"] for row in ReasoningGym(task="chain_sum", **fields).rows()]


def test_rows_carry_the_gold_and_what_the_packages_own_scorer_needs():
    import reasoning_gym

    rows = ReasoningGym(task="gcd", size=20).rows()
    assert check_rows(rows, "evaluate").duplicates == 0
    scorer = reasoning_gym.create_dataset("gcd", size=1, seed=0)
    for row in rows:
        assert json.loads(row["metadata"])["source_dataset"] == row["task"] == "gcd"
        entry = {"metadata": json.loads(row["metadata"]), "answer": row["solution"]}
        assert scorer.score_answer(row["solution"], entry) == 1.0
        assert scorer.score_answer("0", entry) < 1.0


def test_train_and_test_are_disjoint_for_all_seeds():
    # So few problems exist that the seeds overlap.
    fields = {"size": 20, "params": (("min_terms", 2), ("max_terms", 2), ("max_digits", 1))}
    train = {each for seed in range(3) for each in questions(split="train", seed=seed, **fields)}
    test = {each for seed in range(3) for each in questions(split="test", seed=seed, **fields)}
    assert train and test
    assert not train & test


def test_no_problem_comes_twice_and_the_seed_decides():
    few = (("min_terms", 2), ("max_terms", 2), ("max_digits", 1))
    narrow = questions(size=60, seed=1, params=few)
    assert len(narrow) == len(set(narrow)) == 60
    found = questions(size=100, seed=1)
    assert found == questions(size=100, seed=1)
    assert found != questions(size=100, seed=2)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task": "chain_sums"}, "did you mean chain_sum"),
        ({"task": "chain_sum", "params": (("max_term", 2),)}, "max_term"),
        ({"task": "chain_sum", "params": (("min_terms", -1),)}, "min_terms"),
        (
            {"task": "chain_sum", "size": 1000, "params": (("max_terms", 2), ("max_digits", 1))},
            "different train problems found, 1000 wanted",
        ),
    ],
)
def test_tasks_and_settings_that_are_not_there_are_named(fields, said):
    with pytest.raises(DataError, match=said):
        ReasoningGym(**fields).rows()
