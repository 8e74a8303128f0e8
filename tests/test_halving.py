"""A pack cut in two: same log-probs, loss and gradient, and what belongs together stays so."""

import random

import pytest
import tiny
import torch
from torch.nn.functional import logsigmoid
from transformers import LlamaConfig

from align.modeling import attention
from align.modeling.policy import Policy
from align.packing import PAD, Completion, Group, pack
from align.training.halving import UNEVEN, divided, divisible, halves


def random_groups(seed, *, count, most=6):
    """Ragged groups; columns `weight`, one a token, and `name`, one a completion. most: completions
    a group; 0 is two in each.
    """
    draw, name, groups = random.Random(seed), 0, []
    for _ in range(count):
        completions = []
        for _ in range(draw.randint(1, most) if most else 2):
            ids = [draw.randint(3, 47) for _ in range(draw.randint(1, 12))]
            mask = [draw.randint(0, 1) for _ in ids[1:]] + [1]
            columns = {"weight": [draw.gauss(0, 1) for _ in ids], "name": float(name)}
            completions.append(Completion(ids=ids, mask=mask, columns=columns))
            name += 1
        prompt = [draw.randint(3, 47) for _ in range(draw.randint(1, 9))]
        groups.append(Group(prompt=prompt, completions=completions))
    return groups


def policy(*, plans=False):
    """Random weights; plans: with the attention that cuts packs up, which reads their numbering."""
    more = {"attn_implementation": attention.NAME} if plans else {}
    return Policy(tiny.model(LlamaConfig, **more))


def weighted(module, one):
    """A loss that is added up over tokens, its log-probs."""
    logprobs = module(one)[0]
    return (logprobs * one.columns["weight"]).sum(), logprobs


def of_pairs(module, one):
    """A loss that compares neighbours, its log-probs."""
    logprobs = module(one)[0]
    sums = torch.zeros(one.sequences).index_add(0, one.sequence, logprobs)
    chosen, rejected = sums.view(-1, 2).unbind(1)
    return -logsigmoid(chosen - rejected).sum(), logprobs


def computed(module, packs, loss):
    """(loss, gradient by name, log-probs in the order of the packs)."""
    module.zero_grad()
    total, logprobs = 0.0, []
    for one in packs:
        value, found = loss(module, one)
        value.backward()
        total += value.item()
        logprobs.append(found.detach())
    gradient = {name: p.grad.clone() for name, p in module.named_parameters()}
    return total, gradient, torch.cat(logprobs)


def check_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-5)
    for name, gradient in expected[1].items():
        gap = (found[1][name] - gradient).abs().max() / gradient.abs().max()
        assert gap < 1e-5, name


@pytest.mark.parametrize("plans", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("loss", [weighted, of_pairs])
def test_halves_add_up_to_the_whole(loss, padded, plans):
    """Log-probs, loss and gradient, over random packs; quarters and eighths too."""
    module = policy(plans=plans)
    pairs = loss is of_pairs
    for seed in range(6):
        groups = random_groups(seed, count=1 + seed, most=0 if pairs else 6)
        (whole,) = pack(groups, token_budget=10_000, padded=padded, whole=pairs)
        expected = computed(module, [whole], loss)
        if not divisible(whole):
            assert pairs and seed == 0
            continue
        for pieces in (list(halves(whole)), list(divided(whole, whole.tokens // 8))):
            found = computed(module, pieces, loss)
            torch.testing.assert_close(found[2], expected[2], rtol=0, atol=1e-5)
            check_same(found, expected)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("together", [1, 2])
def test_a_half_is_what_packing_its_completions_would_make(together, padded):
    """Every tensor alike, but for the order that packing sorts a group's neighbours into."""
    for seed in range(20):
        groups = random_groups(seed, count=3, most=0 if together == 2 else 6)
        (whole,) = pack(groups, token_budget=10_000, padded=padded, whole=together == 2)
        assert whole.together == together
        for half in halves(whole):
            assert half.sequences % together == 0
            assert half.together == together
            names = half.per_sequence("name").int().tolist()
            again = [
                Group(prompt=group.prompt, completions=kept)
                for group in groups
                if (kept := [c for c in group.completions if c.columns["name"] in names])
            ]
            (made,) = pack(again, token_budget=10_000, padded=padded, whole=together == 2)
            assert half.tokens == made.tokens
            if made.per_sequence("name").int().tolist() != names:
                continue
            for name, value in vars(made).items():
                assert str(getattr(half, name)) == str(value), name


def test_what_is_left_of_a_group_by_hand():
    """Prompt 5 6 with 7 8 and 9, prompt 3 with 4: cells 5 6 7 8 9 3 4. The border between the
    prompts leaves 5 and 2 tokens, within 3/4 of 7 = 5.25.
    """
    groups = [
        Group(prompt=[5, 6], completions=[Completion(ids=[7, 8]), Completion(ids=[9])]),
        Group(prompt=[3], completions=[Completion(ids=[4])]),
    ]
    first, second = halves(pack(groups, token_budget=100)[0])
    assert first.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert second.input_ids.tolist() == [[3, 4]]
    assert second.position_ids.tolist() == [[0, 1]]
    assert (second.segment.tolist(), second.prompt.tolist()) == ([[0, 1]], [[0, 0]])
    assert (second.predictor.tolist(), second.target.tolist()) == ([0], [4])
    assert (second.sequence.tolist(), second.last.tolist()) == ([0], [1])
    again, alone = halves(first)
    assert again.input_ids.tolist() == [[5, 6, 7, 8]]
    assert alone.input_ids.tolist() == [[5, 6, 9]]
    assert alone.position_ids.tolist() == [[0, 1, 2]]
    assert alone.predictor.tolist() == [1]


def test_padding_goes_with_the_longest_row():
    """Rows of 4 and 3 and 2, padded to 4; the shorter half is padded to its own longest."""
    completions = [Completion(ids=[7] * n) for n in (3, 2, 1)]
    (whole,) = pack([Group(prompt=[5], completions=completions)], token_budget=100, padded=True)
    first, second = halves(whole)
    assert first.input_ids.tolist() == [[5, 7, 7, 7]]
    assert second.input_ids.tolist() == [[5, 7, 7], [5, 7, 0]]
    assert second.segment.tolist()[1][2] == PAD
    assert second.predictor.tolist() == [0, 1, 3]
    assert second.last.tolist() == [2, 4]


def test_a_group_stays_whole_unless_it_is_most_of_the_pack():
    """Prompts of 10 with completions of 10: 2 and 2 are cut between; 5 and 1 inside the first."""

    def cut(*counts):
        groups = [
            Group(prompt=[p] * 10, completions=[Completion(ids=[7] * 10)] * n)
            for p, n in enumerate(counts, 1)
        ]
        (whole,) = pack(groups, token_budget=10_000)
        found = halves(whole)
        return whole.tokens, [len(set(half.prompt.flatten().tolist())) for half in found], found

    assert cut(2, 2)[1] == [1, 1]
    tokens, prompts, found = cut(5, 1)  # 60 of 80 is 3/4, as much as may be
    assert (tokens, prompts) == (80, [1, 1])
    assert [half.tokens for half in found] == [60, 20]
    tokens, prompts, found = cut(7, 1)
    assert [half.tokens for half in found] == [50, 60]
    assert max(half.tokens for half in found) <= UNEVEN * tokens
    assert prompts == [1, 2]


@pytest.mark.parametrize("padded", [False, True])
def test_pieces_keep_to_the_limit_unless_they_are_single(padded):
    for seed in range(5):
        (whole,) = pack(random_groups(seed, count=5), token_budget=10_000, padded=padded)
        assert list(divided(whole, None)) == [whole]
        assert list(divided(whole, whole.tokens)) == [whole]
        for most in (1, 10, 40):
            pieces = list(divided(whole, most))
            assert all(piece.tokens <= most or piece.sequences == 1 for piece in pieces)
            names = [n for piece in pieces for n in piece.per_sequence("name").tolist()]
            assert names == whole.per_sequence("name").tolist()


@pytest.mark.parametrize("whole", [False, True])
def test_one_unit_cannot_be_cut(whole):
    (one,) = pack(random_groups(0, count=1, most=0), token_budget=1000, whole=whole)
    assert divisible(one) is not whole
    for last in [one] if whole else halves(one):
        assert not divisible(last)
        with pytest.raises(ValueError, match="cannot be cut"):
            halves(last)


def test_units_of_one_pack_have_one_size():
    one, two = random_groups(0, count=1, most=0)[0], random_groups(1, count=1, most=1)[0]
    with pytest.raises(ValueError, match="equally many"):
        pack([one, two], token_budget=100, whole=True)
