"""Packs of pairs: never torn apart, chosen before rejected, whatever the budget and the layout."""

import random

import pytest
import torch

from align.packing import Completion, Group, pack
from align.training.update import filler

BUDGETS = (1, 16, 40, 100, 10_000)


def pairs(seed, count=9):
    """Pairs of ragged lengths. Tokens are unique but for the prompts'; `name` is 2 i for the chosen
    completion of pair i and 2 i + 1 for the rejected one.
    """
    draw = random.Random(seed)
    tokens = iter(range(1000, 100_000))
    found = []
    for i in range(count):
        completions = []
        for name in (2 * i, 2 * i + 1):
            ids = [next(tokens) for _ in range(draw.randint(1, 30))]
            mask = [draw.randint(0, 1) for _ in ids[1:]] + [1]
            completions.append(Completion(ids=ids, mask=mask, columns={"name": float(name)}))
        found.append(Group(prompt=[next(tokens)] * draw.randint(1, 9), completions=completions))
    return found


def names(one):
    return one.per_sequence("name").int().tolist()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_pair_stays_together_and_in_order(budget, padded):
    for seed in range(5):
        packs = pack(pairs(seed), token_budget=budget, padded=padded, whole=True)
        for one in packs:
            chosen, rejected = names(one)[::2], names(one)[1::2]
            assert all(name % 2 == 0 for name in chosen)
            assert rejected == [name + 1 for name in chosen]
        assert sorted(name for one in packs for name in names(one)) == list(range(18))


@pytest.mark.parametrize("padded", [False, True])
def test_without_whole_this_budget_would_tear_pairs(padded):
    torn = 0
    for one in pack(pairs(0), token_budget=40, padded=padded):
        there = set(names(one))
        torn += sum((name ^ 1) not in there for name in there)
    assert torn > 4


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_only_a_pair_larger_than_the_budget_exceeds_it(budget, padded):
    exceeding = 0
    for seed in range(5):
        for one in pack(pairs(seed), token_budget=budget, padded=padded, whole=True):
            assert one.tokens <= budget or one.sequences == 2
            exceeding += one.tokens > budget
    assert (exceeding > 0) == (budget < 70)


def test_a_pair_larger_than_the_budget_keeps_its_one_prompt():
    both = [Completion(ids=[4, 5, 6]), Completion(ids=[7, 8])]
    (one,) = pack([Group(prompt=[2, 3], completions=both)], token_budget=4, whole=True)
    assert one.input_ids.tolist() == [[2, 3, 4, 5, 6, 7, 8]]
    assert one.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3]]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_last_is_where_each_completion_ends(budget, padded):
    """Also where its last token is not trained, and where rows are filled up."""
    rows = pairs(3)
    ends = [completion.ids[-1] for row in rows for completion in row.completions]
    for one in pack(rows, token_budget=budget, padded=padded, whole=True):
        found = one.input_ids.flatten()[one.last].tolist()
        assert found == [ends[name] for name in names(one)]


def test_packs_of_pairs_do_not_depend_on_anything_but_the_pairs():
    first, second = (pack(pairs(2), token_budget=80, whole=True) for _ in range(2))
    assert len(first) > 2
    assert [names(one) for one in first] == [names(one) for one in second]


def test_a_rank_without_pairs_gets_a_pair_that_weighs_nothing():
    one = filler(("weight", "reference"))
    assert one.sequences == 2
    assert one.lengths().tolist() == [1, 1]
    assert all(torch.equal(values, torch.zeros(2)) for values in one.columns.values())
    assert one.columns.keys() == {"weight", "reference"}
