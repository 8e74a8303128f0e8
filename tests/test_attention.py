"""Attention cut up by group equals attention under the dense mask, and does less."""

import pytest
import torch

from align import attention
from align.packing import Completion, Group, pack


def a_pack(prompts, completions):
    """One pack; completions: lengths of each prompt's completions."""
    token = iter(range(1, 10_000))
    groups = [
        Group(
            prompt=[next(token) for _ in range(prompt)],
            completions=[Completion(ids=[next(token) for _ in range(n)]) for n in lengths],
        )
        for prompt, lengths in zip(prompts, completions, strict=True)
    ]
    (one,) = pack(groups, token_budget=10_000)
    return one


def states(width, heads, requires_grad=True):
    generator = torch.Generator().manual_seed(heads)
    shape = (1, heads, width, 8)
    made = torch.randn(shape, generator=generator, dtype=torch.float64)
    return made.requires_grad_(requires_grad)


class Layer(torch.nn.Module):
    """What `transformers` passes first: a layer whose two query heads share each key head."""

    num_key_value_groups = 2


def attended(one, plan):
    query, key, value = states(one.tokens, 4), states(one.tokens, 2), states(one.tokens, 2)
    lowest = torch.finfo(torch.float64).min
    mask = torch.zeros(one.attention_mask().shape, dtype=torch.float64)
    mask.masked_fill_(~one.attention_mask(), lowest)
    out, _ = attention.attend(Layer(), query, key, value, mask, pack_plan=plan)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    (out * weights).sum().backward()
    return [out.detach(), query.grad, key.grad, value.grad]


@pytest.mark.parametrize("batch_cost", [0, 16_384])
@pytest.mark.parametrize(
    ("prompts", "completions"),
    [
        ([5], [[6, 9, 7, 8]]),
        ([4, 7, 2], [[6, 2], [1, 8, 5, 5], [7]]),
        ([1, 6], [[9], [9, 9]]),
    ],
)
def test_output_and_gradients_equal_the_dense_mask_s(prompts, completions, batch_cost, monkeypatch):
    monkeypatch.setattr(attention, "BATCH_COST", batch_cost)
    one = a_pack(prompts, completions)
    plan = attention.plan(one, torch.float64)
    assert plan is not None
    for ours, dense in zip(attended(one, plan), attended(one, None), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)


def test_a_token_of_another_completion_changes_nothing():
    one = a_pack([4], [[3, 3]])
    plan = attention.plan(one, torch.float64)
    key, value = states(10, 2, False), states(10, 2, False)
    before, _ = attention.attend(Layer(), states(10, 4), key, value, None, pack_plan=plan)
    key[0, :, 4:7] += 1.0  # the first completion's keys
    after, _ = attention.attend(Layer(), states(10, 4), key, value, None, pack_plan=plan)
    changed = (before - after).abs().amax((0, 2, 3)) > 0
    assert changed.tolist() == [False] * 4 + [True] * 3 + [False] * 3


def test_completions_of_very_different_length_are_not_padded_to_one_another(monkeypatch):
    """One completion of 60 and six of 1 behind a prompt of 2, padded to one another, would be
    7 * 60 * 62 pairs. Apart they are 60 * 62 and, with the prompt, 7 * 2 * 4.
    """
    monkeypatch.setattr(attention, "BATCH_COST", 100)
    plan = attention.plan(a_pack([2], [[60, 1, 1, 1, 1, 1, 1]]), torch.float64)
    assert [tuple(block.bias.shape) for block in plan.blocks] == [(1, 1, 60, 62), (7, 1, 2, 4)]


def test_a_few_cells_of_padding_cost_less_than_another_batch():
    plan = attention.plan(a_pack([2], [[9, 8, 8, 7]]), torch.float64)
    assert [tuple(block.query.shape) for block in plan.blocks] == [(5, 9)]


def test_dropout_is_refused():
    one = a_pack([2], [[3]])
    inputs = [states(5, heads) for heads in (4, 2, 2)]
    plan = attention.plan(one, torch.float64)
    with pytest.raises(ValueError, match="attention_dropout"):
        attention.attend(Layer(), *inputs, None, dropout=0.1, pack_plan=plan)


def test_padded_rows_have_no_plan():
    group = Group(prompt=[1, 2], completions=[Completion(ids=[3, 4]), Completion(ids=[5])])
    (rows,) = pack([group], token_budget=100, padded=True)
    assert attention.plan(rows, torch.float64) is None
