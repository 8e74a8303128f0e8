"""Entropy against its golden number, torch.distributions and finite differences."""

import math

import pytest
import torch

from align.objectives import entropy


def test_golden_number():
    value = entropy.entropy(torch.tensor([0.1, 0.3, 0.6]))
    assert value.item() == pytest.approx(0.897946, abs=5e-7)


def test_logits_equal_torch_distributions():
    logits = torch.randn(5, 7, dtype=torch.float64)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy.entropy_of_logits(logits), expected)
    torch.testing.assert_close(entropy.entropy(logits.softmax(-1)), expected)


def test_impossible_outcomes_add_nothing():
    assert entropy.entropy(torch.tensor([0.5, 0.5, 0.0])).item() == pytest.approx(math.log(2))


def test_a_ruled_out_action_keeps_value_and_gradient_finite():
    logits = torch.tensor([0.3, -0.4, -math.inf], requires_grad=True)
    allowed = torch.tensor([0.3, -0.4], requires_grad=True)
    value, expected = entropy.entropy_of_logits(logits), entropy.entropy_of_logits(allowed)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad, torch.cat([allowed.grad, torch.zeros(1)]))


def test_gradient_by_finite_differences():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy.entropy_of_logits, (logits,))
    probabilities = torch.rand(3, 4, dtype=torch.float64).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(entropy.entropy, (probabilities,))


def test_a_positive_bonus_raises_the_entropy():
    logits = torch.tensor([1.0, 0.0, -1.0], requires_grad=True)
    before = entropy.entropy_of_logits(logits)
    entropy.entropy_bonus(before, coefficient=0.5).backward()
    after = entropy.entropy_of_logits(logits.detach() - 0.1 * logits.grad)
    assert after > before
    assert entropy.entropy_bonus(torch.tensor(2.0), coefficient=0.5).item() == -1.0


def test_bfloat16_is_computed_in_float32():
    logits = torch.randn(8, 100).bfloat16()
    value = entropy.entropy_of_logits(logits)
    assert value.dtype == torch.float32
    assert torch.equal(value, entropy.entropy_of_logits(logits.float()))
