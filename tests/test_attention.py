"""Attention cut up by group equals attention under the dense mask, and does less."""

import pytest
import torch

from align.modeling import attention
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


def attended(one, plan, precision=torch.float64):
    shapes = (4, 2, 2)
    query, key, value = (
        states(one.tokens, heads, False).to(precision).requires_grad_() for heads in shapes
    )
    mask = attention.dense_mask(one, precision)
    out, _ = attention.attend(Layer(), query, key, value, mask, pack_plan=plan)
    weights = torch.linspace(-1, 1, out.numel(), dtype=precision).view_as(out)
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


def test_dropout_is_that_of_the_dense_mask():
    """Drawn alike under one seed, and not left out."""
    one = a_pack([4], [[3, 5]])
    inputs = [states(12, heads, False) for heads in (4, 2, 2)]
    mask = attention.dense_mask(one, torch.float64)
    plan = attention.plan(one, torch.float64)
    found = []
    for dropout, made, given in ((0.3, plan, None), (0.3, None, mask), (0.0, plan, None)):
        torch.manual_seed(1)
        out, _ = attention.attend(Layer(), *inputs, given, dropout=dropout, pack_plan=made)
        found.append(out)
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    assert (found[0] - found[2]).abs().max() > 0.1


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_rounding_is_no_more_than_sdpa_s(precision):
    """Distance from float64, of output and gradients, beside SDPA's under the dense mask."""
    one = a_pack([9, 4], [[12, 3, 30, 8], [5, 17]])
    exact = attended(one, None)
    errors = {}
    for name, plan in (("ours", attention.plan(one, precision)), ("sdpa", None)):
        made = attended(one, plan, precision)
        errors[name] = [
            float((a.double() - b).norm() / b.norm()) for a, b in zip(made, exact, strict=True)
        ]
    for ours, sdpa in zip(errors["ours"], errors["sdpa"], strict=True):
        assert ours < 1.5 * sdpa, errors


def test_padded_rows_have_no_plan():
    group = Group(prompt=[1, 2], completions=[Completion(ids=[3, 4]), Completion(ids=[5])])
    (rows,) = pack([group], token_budget=100, padded=True)
    assert attention.plan(rows, torch.float64) is None
