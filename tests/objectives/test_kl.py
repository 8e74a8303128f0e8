"""KL and its estimators against torch's KLDivLoss and exact enumeration of a small vocabulary."""

import math

import pytest
import torch

from align.objectives import kl, policy

P = torch.tensor([0.4, 0.2, 0.4], dtype=torch.float64)
Q = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)


def test_kl_equals_torch():
    expected = torch.nn.KLDivLoss(reduction="sum")(Q.log(), P)
    torch.testing.assert_close(kl.kl(policy=P, reference=Q), expected, rtol=1e-14, atol=0)


def test_kl_has_a_direction():
    reverse = torch.nn.KLDivLoss(reduction="sum")(P.log(), Q)
    assert abs(reverse - kl.kl(policy=P, reference=Q)) > 0.01


def test_unnormalised_golden_number():
    weights = torch.tensor([0.4, 0.2, 0.3])
    assert kl.kl(policy=weights, reference=Q.float()).item() == pytest.approx(0.05345, abs=5e-6)


def test_kl_where_a_side_never_goes():
    certain, half = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    assert kl.kl(policy=certain, reference=half).item() == pytest.approx(math.log(2))
    assert kl.kl(policy=half, reference=certain).item() == math.inf


def test_kl_sums_the_last_axis_alone():
    both = kl.kl(policy=torch.stack([P, Q]), reference=torch.stack([Q, Q]))
    assert both.shape == (2,) and both[1] == 0 and both[0] == kl.kl(policy=P, reference=Q)


@pytest.mark.parametrize("estimator", [kl.k1, kl.k3])
def test_expectations_of_k1_and_k3_are_the_exact_kl(estimator):
    expectation = (P * estimator(policy=P.log(), reference=Q.log())).sum()
    torch.testing.assert_close(expectation, kl.kl(policy=P, reference=Q), rtol=1e-13, atol=0)


def test_estimators_on_one_token():
    log_ratio = {"policy": torch.tensor(math.log(0.4)), "reference": torch.tensor(math.log(0.1))}
    assert kl.k1(**log_ratio).item() == pytest.approx(math.log(4))
    assert kl.k2(**log_ratio).item() == pytest.approx(math.log(4) ** 2 / 2)
    assert kl.k3(**log_ratio).item() == pytest.approx(0.25 - 1 + math.log(4))


def test_k3_is_never_negative_near_the_reference():
    policy_log = torch.full((1000,), -2.0)
    reference = policy_log + torch.linspace(-1e-3, 1e-3, 1000)
    values = kl.k3(policy=policy_log, reference=reference)
    exact = kl.k3(policy=policy_log.double(), reference=reference.double())
    assert (values >= 0).all()
    torch.testing.assert_close(values.double(), exact, rtol=0, atol=1e-9)


def expected_gradient(loss_of_each_action):
    """Exact gradient of the loss, averaged over actions drawn from the policy, by its logits."""
    logits = torch.tensor([0.5, -0.2, 0.3], dtype=torch.float64, requires_grad=True)
    log_p = torch.log_softmax(logits, -1)
    (log_p.exp().detach() * loss_of_each_action(log_p)).sum().backward()
    return logits.grad


def exact_gradient(divergence):
    logits = torch.tensor([0.5, -0.2, 0.3], dtype=torch.float64, requires_grad=True)
    divergence(torch.softmax(logits, -1)).backward()
    return logits.grad


def forward_kl(p):
    return kl.kl(policy=p, reference=Q)


def backward_kl(p):
    return torch.nn.KLDivLoss(reduction="sum")(p.log(), Q)


def unbiased_k3(log_p):
    on_policy = log_p - log_p.detach()
    return policy.kl_penalty(policy=log_p, reference=Q.log(), beta=1.0, log_ratio=on_policy)


@pytest.mark.parametrize(
    ("loss", "exact"),
    [
        (lambda log_p: kl.k1(policy=log_p, reference=Q.log()), lambda p: 0 * p.sum()),
        (lambda log_p: kl.k2(policy=log_p, reference=Q.log()), forward_kl),
        (lambda log_p: kl.k3(policy=log_p, reference=Q.log()), backward_kl),
        (unbiased_k3, forward_kl),
    ],
    ids=["k1", "k2", "k3", "k3 weighted by the ratio"],
)
def test_what_each_estimator_does_as_a_loss(loss, exact):
    torch.testing.assert_close(
        expected_gradient(loss), exact_gradient(exact), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("estimator", [kl.k1, kl.k2, kl.k3])
def test_gradient_by_finite_differences_and_none_to_the_reference(estimator):
    log_p = P.log().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: estimator(policy=x, reference=Q.log()), (log_p,))
    reference = Q.log().requires_grad_()
    assert not estimator(policy=P.log(), reference=reference).requires_grad


def test_gradient_of_the_exact_kl():
    probabilities = P.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: kl.kl(policy=p, reference=Q), (probabilities,))
    assert not kl.kl(policy=P, reference=Q.clone().requires_grad_()).requires_grad


def test_bfloat16_is_computed_in_float32():
    p, q = P.log().bfloat16(), Q.log().bfloat16()
    for estimator in (kl.k1, kl.k2, kl.k3):
        value = estimator(policy=p, reference=q)
        assert value.dtype == torch.float32
        assert torch.equal(value, estimator(policy=p.float(), reference=q.float()))
