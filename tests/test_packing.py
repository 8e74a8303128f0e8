"""Packs: what is laid out where, what may attend to what, and what is trained."""

import random

import pytest

from align.packing import Completion, Group, Pack, least_tokens, pack


def group(prompt, *completions):
    return Group(prompt=prompt, completions=[Completion(ids=ids) for ids in completions])


def random_groups(seed, count=6):
    """Groups of ragged lengths; every completion token is unique and carries itself in a column."""
    draw = random.Random(seed)
    tokens = iter(range(1000, 100_000))
    groups = []
    for _ in range(count):
        completions = []
        for _ in range(draw.randint(1, 6)):
            ids = [next(tokens) for _ in range(draw.randint(1, 15))]
            mask = [draw.randint(0, 1) for _ in ids]
            columns = {"token": [float(i) for i in ids], "first": float(ids[0])}
            completions.append(Completion(ids=ids, mask=mask, columns=columns))
        groups.append(Group(prompt=[next(tokens)] * draw.randint(1, 9), completions=completions))
    return groups


def test_two_completions_written_out():
    """Prompt 5 6, completions 7 8 and 9: cells 5 6 7 8 9.

    7 and 9 both follow 6 (cell 1), 8 follows 7 (cell 2); 9 takes position 2, as 7 did.
    """
    (one,) = pack([group([5, 6], [7, 8], [9])], token_budget=100)
    assert one.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert one.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert one.predictor.tolist() == [1, 2, 1]
    assert one.target.tolist() == [7, 8, 9]
    assert one.sequence.tolist() == [0, 0, 1]
    assert one.sequences == 2
    assert one.lengths().tolist() == [2, 1]
    assert one.attention_mask()[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_two_groups_in_one_row_do_not_see_each_other():
    """Cells: prompt 5 6 with 7, prompt 8 with 9; the longer group comes first."""
    (one,) = pack([group([8], [9]), group([5, 6], [7])], token_budget=5)
    assert one.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert one.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert one.predictor.tolist() == [1, 3]
    assert one.attention_mask()[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def test_padded_layout_written_out():
    """One row a sequence, the longest first, width 4; the prompt is computed in every row."""
    (one,) = pack([group([5, 6], [9], [7, 8])], token_budget=8, padded=True)
    assert one.input_ids.tolist() == [[5, 6, 7, 8], [5, 6, 9, 0]]
    assert one.position_ids.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0]]
    assert one.attention_mask().tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert one.predictor.tolist() == [1, 2, 5]  # flat cells: row * 4 + column
    assert one.target.tolist() == [7, 8, 9]
    assert one.tokens == 8


def test_a_prompt_is_computed_once():
    """Prompts 3 + 2, completions 2 + 4 + 1 and 5 + 1: 5 + 7 + 6 = 18 tokens; padded rows of 7 or
    less to a batch make 5 rows of 7 = 35.
    """
    groups = [group([1, 2, 3], [4] * 2, [5] * 4, [6]), group([7, 8], [9] * 5, [9])]
    assert least_tokens(groups) == 18
    (packed,) = pack(groups, token_budget=18)
    (padded,) = pack(groups, token_budget=35, padded=True)
    assert (packed.tokens, padded.tokens) == (18, 35)


def test_a_group_without_completions_costs_nothing():
    assert pack([group([1, 2])], token_budget=10) == []
    assert least_tokens([group([1, 2])]) == 0


def test_a_group_over_the_budget_is_cut_and_its_prompt_repeated():
    """Budget 6, prompt of 2: room for 4 completion tokens; 3 and 2 do not fit together, 2 and 2
    do.
    """
    packs = pack([group([5, 6], [1, 1, 1], [2, 2], [3, 3])], token_budget=6)
    assert [one.input_ids[0].tolist() for one in packs] == [[5, 6, 2, 2, 3, 3], [5, 6, 1, 1, 1]]
    assert [one.position_ids[0].tolist() for one in packs] == [[0, 1, 2, 3, 2, 3], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("budget", [1, 16, 40, 100, 10_000])
def test_every_trained_token_stands_once_with_its_columns(budget, padded):
    for seed in range(5):
        groups = random_groups(seed)
        packs = pack(groups, token_budget=budget, padded=padded)
        wanted = [
            (token, completion.ids[0])
            for one in groups
            for completion in one.completions
            for token, trained in zip(completion.ids, completion.mask, strict=True)
            if trained
        ]
        found = [
            (int(token), int(first))
            for one in packs
            for token, first in zip(one.target, one.columns.get("first", []), strict=True)
        ]
        assert sorted(found) == sorted(wanted)
        for one in packs:
            if len(one.target):
                assert one.columns["token"].tolist() == one.target.tolist()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("budget", [1, 16, 40, 100, 10_000])
def test_packs_stay_within_the_budget(budget, padded):
    """More only where one prompt with one completion is longer, and then it is alone."""
    for seed in range(5):
        for one in pack(random_groups(seed), token_budget=budget, padded=padded):
            assert one.tokens <= budget or one.sequences == 1


def test_one_pack_of_everything_computes_the_least_tokens():
    groups = random_groups(0)
    (one,) = pack(groups, token_budget=10_000)
    assert one.tokens == least_tokens(groups)


def test_first_fit_leaves_no_two_packs_that_fit_together():
    for seed in range(5):
        sizes = [one.tokens for one in pack(random_groups(seed), token_budget=60)]
        assert len(sizes) > 1
        assert sum(sorted(sizes)[:2]) > 60


def test_equal_input_packs_alike():
    first, second = (pack(random_groups(3), token_budget=50) for _ in range(2))
    assert [one.input_ids.tolist() for one in first] == [one.input_ids.tolist() for one in second]


def test_masked_tokens_are_read_and_not_trained():
    """A second turn: 8 and 9 are the user's, read by what follows; 9 predicts 10."""
    turns = Completion(ids=[7, 8, 9, 10], mask=[1, 0, 0, 1], columns={"weight": 0.5})
    (one,) = pack([Group(prompt=[5, 6], completions=[turns])], token_budget=10)
    assert one.target.tolist() == [7, 10]
    assert one.predictor.tolist() == [1, 4]
    assert one.columns["weight"].tolist() == [0.5, 0.5]
    assert one.attention_mask()[0, 0, 5].tolist() == [True] * 6


def test_columns_of_one_value_a_token_follow_the_mask():
    completion = Completion(ids=[7, 8, 9], mask=[1, 0, 1], columns={"old": [-1.0, -2.0, -3.0]})
    (one,) = pack([Group(prompt=[5], completions=[completion])], token_budget=10)
    assert one.columns["old"].tolist() == [-1.0, -3.0]


@pytest.mark.parametrize("padded", [False, True])
def test_to_keeps_everything(padded):
    (one,) = pack(random_groups(0), token_budget=10_000, padded=padded)
    moved = one.to("cpu")
    for name, value in vars(one).items():
        assert str(vars(moved)[name]) == str(value), name
    assert isinstance(moved, Pack)


def test_a_prompt_is_needed():
    with pytest.raises(ValueError, match="prompt of at least one token"):
        group([], [1])


def test_an_empty_completion_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        group([1], [])
