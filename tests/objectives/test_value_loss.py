"""The critic's loss by hand, by finite differences, and what must stay a constant."""

import pytest
import torch

from align.objectives.value import value_loss

VALUES = torch.tensor([0.5, 2.0, -1.0, 3.0], dtype=torch.float64)
RETURNS = torch.tensor([1.0, 1.0, 1.0, 2.9], dtype=torch.float64)
OLD = torch.tensor([0.4, 0.4, -0.9, 1.0], dtype=torch.float64)


def test_half_of_the_square():
    assert value_loss(VALUES, returns=RETURNS).tolist() == pytest.approx([0.125, 0.5, 2.0, 0.005])


def test_clipping_takes_the_larger_loss():
    # Held within 0.2 of the old value: 0.5, 0.6, -1.0, 1.2. The last moved far to the good side:
    # its own loss is 0.005, the held one 0.5 * 1.7^2.
    loss = value_loss(VALUES, returns=RETURNS, old_values=OLD, clip=0.2)
    assert loss.tolist() == pytest.approx([0.125, 0.5, 2.0, 1.445])


def test_gradient_by_finite_differences():
    values = VALUES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: value_loss(v, returns=RETURNS), (values,))
    clipped = {"returns": RETURNS, "old_values": OLD, "clip": 0.2}
    assert torch.autograd.gradcheck(lambda v: value_loss(v, **clipped), (values,))


def test_a_return_from_the_critic_itself_is_a_constant():
    values = VALUES.clone().requires_grad_()
    value_loss(values, returns=0.9 * values + 1.0).sum().backward()
    torch.testing.assert_close(values.grad, VALUES - (0.9 * VALUES + 1.0))


def test_an_old_value_from_the_critic_itself_is_a_constant():
    values = VALUES.clone().requires_grad_()
    value_loss(values, returns=RETURNS, old_values=2 * values, clip=0.2).sum().backward()
    # Held at 0.8, 3.8, -1.8, 5.8: where the held value's loss is the larger one, nothing moves.
    expected = (VALUES - RETURNS) * torch.tensor([1, 0, 0, 0])
    torch.testing.assert_close(values.grad, expected)


def test_bfloat16_is_computed_in_float32():
    loss = value_loss(torch.tensor([1.0078125]).bfloat16(), returns=torch.tensor([1.0]))
    assert loss.dtype == torch.float32 and loss.item() == 0.5 * 0.0078125**2


@pytest.mark.parametrize("half", [{"clip": 0.2}, {"old_values": OLD}])
def test_half_a_clip_is_refused(half):
    with pytest.raises(ValueError, match="both clip= and old_values="):
        value_loss(VALUES, returns=RETURNS, **half)
