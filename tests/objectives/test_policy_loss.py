"""Policy losses by hand and by finite differences; `test_trl_equivalence.py` has TRL's."""

import math

import pytest
import torch

from align.objectives import kl, policy

# Four completions of 3, 1, 4, 2 tokens, all ratios away from the kinks at 0.8 and 1.3.
LENGTHS = torch.tensor([3, 1, 4, 2])
SEQUENCE = torch.arange(4).repeat_interleave(LENGTHS)
LAYOUT = {"sequence": SEQUENCE, "lengths": LENGTHS}
RATIO = torch.tensor([0.5, 1.0, 1.6, 1.1, 0.7, 0.9, 1.2, 2.0, 0.6, 1.5], dtype=torch.float64)
ADVANTAGE = torch.tensor([1.0, -2.0, 0.5, -1.0], dtype=torch.float64)[SEQUENCE]
OLD = -torch.arange(1, 11, dtype=torch.float64) / 4
POLICY = OLD + RATIO.log()
REFERENCE = OLD.flip(0)
BOUNDS = {"epsilon_low": 0.2, "epsilon_high": 0.3}


def gradient_of(loss, point):
    point = point.clone().requires_grad_()
    loss(point).sum().backward()
    return point.grad


def test_clipped_surrogate_by_hand_in_every_region():
    ratio = torch.tensor([0.5, 0.5, 1.0, 1.0, 1.6, 1.6])
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    loss = policy.clipped_surrogate(ratio.log(), advantage=advantage, **BOUNDS)
    assert loss.tolist() == pytest.approx([-0.5, 0.8, -1.0, 1.0, -1.3, 1.6])


def test_is_clipped_marks_exactly_the_tokens_without_gradient():
    def loss(log_ratio):
        return policy.clipped_surrogate(log_ratio, advantage=ADVANTAGE, **BOUNDS)

    clipped = policy.is_clipped(RATIO.log(), advantage=ADVANTAGE, **BOUNDS)
    assert torch.equal(clipped, gradient_of(loss, RATIO.log()) == 0)
    assert 0 < clipped.sum() < len(clipped)


def test_sequence_ratio_is_the_geometric_mean_of_the_tokens_ratios():
    log_ratio = policy.sequence_log_ratio(policy=POLICY, old=OLD, **LAYOUT)
    expected = [
        math.prod(part.tolist()) ** (1 / len(part)) for part in RATIO.split(LENGTHS.tolist())
    ]
    assert log_ratio.exp().tolist() == pytest.approx([expected[i] for i in SEQUENCE.tolist()])


def test_gspo_gradient_equals_the_stopped_gradient_form_of_the_paper():
    def shared_mean(log_p):
        ratio = policy.sequence_log_ratio(policy=log_p, old=OLD, **LAYOUT)
        return policy.clipped_surrogate(ratio, advantage=ADVANTAGE, **BOUNDS)

    def gspo_token(log_p):  # s_i,t = stop(s_i) * p_t / stop(p_t)
        stopped = policy.sequence_log_ratio(policy=log_p, old=OLD, **LAYOUT).detach()
        ratio = stopped + log_p - log_p.detach()
        return policy.clipped_surrogate(ratio, advantage=ADVANTAGE, **BOUNDS)

    torch.testing.assert_close(gradient_of(shared_mean, POLICY), gradient_of(gspo_token, POLICY))


def test_cispo_gradient_is_reinforce_with_a_bounded_weight():
    def loss(log_p):
        ratio = policy.token_log_ratio(policy=log_p, old=OLD)
        return policy.cispo(ratio, policy=log_p, advantage=ADVANTAGE, ratio_max=1.3)

    expected = -RATIO.clamp(max=1.3) * ADVANTAGE
    torch.testing.assert_close(gradient_of(loss, POLICY), expected)


def test_penalty_and_its_adaptive_weight():
    divergence = torch.tensor([0.1, 0.2])
    advantage = torch.tensor([1.0, -1.0])
    ratio = torch.tensor([2.0, 0.5])
    loss = policy.ppo_penalty(ratio.log(), advantage=advantage, kl=divergence, beta=3.0)
    assert loss.tolist() == pytest.approx([-2 + 0.3, 0.5 + 0.6])
    steps = [policy.adapt_beta(1.0, kl=k, target=0.3) for k in (0.19, 0.21, 0.44, 0.46)]
    assert steps == [0.5, 1.0, 1.0, 2.0]


def test_grpo_is_clip_times_correction_plus_beta_k3():
    correction = torch.linspace(0.5, 1.5, 10, dtype=torch.float64)
    result = policy.grpo(
        policy=POLICY,
        old=OLD,
        advantage=ADVANTAGE,
        **LAYOUT,
        **BOUNDS,
        correction=correction,
        reference=REFERENCE,
        beta=0.1,
    )
    held = RATIO.clamp(0.8, 1.3)
    surrogate = -torch.minimum(RATIO * ADVANTAGE, held * ADVANTAGE)
    k3 = (REFERENCE - POLICY).exp() - 1 - (REFERENCE - POLICY)
    torch.testing.assert_close(result.loss, surrogate * correction + 0.1 * k3)
    torch.testing.assert_close(result.kl, k3)
    expected = policy.is_clipped(RATIO.log(), advantage=ADVANTAGE, **BOUNDS)
    assert torch.equal(result.clipped, expected)


def test_a_reference_without_beta_is_measured_and_not_charged():
    common = {"policy": POLICY, "old": OLD, "advantage": ADVANTAGE, **LAYOUT}
    measured = policy.grpo(**common, reference=REFERENCE)
    assert torch.equal(measured.loss, policy.grpo(**common).loss)
    assert torch.equal(measured.kl, kl.k3(policy=POLICY, reference=REFERENCE))
    assert policy.grpo(**common).kl is None


def test_cispo_reports_the_tokens_held_at_the_bound():
    result = policy.grpo(policy=POLICY, old=OLD, advantage=ADVANTAGE, **LAYOUT, ratio_max=1.3)
    assert torch.equal(result.clipped, RATIO > 1.3)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("kl_weighting", ["none", "ratio"])
def test_gradient_by_finite_differences(level, kl_weighting):
    def loss(log_p):
        return policy.grpo(
            policy=log_p,
            old=OLD,
            advantage=ADVANTAGE,
            **LAYOUT,
            **BOUNDS,
            level=level,
            correction=torch.linspace(0.5, 1.5, 10, dtype=torch.float64),
            reference=REFERENCE,
            beta=0.1,
            kl_weighting=kl_weighting,
        ).loss

    assert torch.autograd.gradcheck(loss, (POLICY.clone().requires_grad_(),))


def test_gradient_of_the_penalty_by_finite_differences():
    def loss(log_ratio):
        divergence = log_ratio.square()
        return policy.ppo_penalty(log_ratio, advantage=ADVANTAGE, kl=divergence, beta=0.7)

    assert torch.autograd.gradcheck(loss, (RATIO.log().requires_grad_(),))


@pytest.mark.parametrize("ratio_max", [None, 1.3])
def test_gradient_flows_through_the_policy_alone(ratio_max):
    constants = {
        "old": OLD.clone().requires_grad_(),
        "advantage": ADVANTAGE.clone().requires_grad_(),
        "correction": RATIO.clone().requires_grad_(),
        "reference": REFERENCE.clone().requires_grad_(),
    }
    log_p = POLICY.clone().requires_grad_()
    result = policy.grpo(
        policy=log_p, **constants, **LAYOUT, beta=0.1, kl_weighting="ratio", ratio_max=ratio_max
    )
    result.loss.sum().backward()
    assert log_p.grad.abs().sum() > 0
    assert not result.kl.requires_grad
    assert {name: t.grad for name, t in constants.items()} == dict.fromkeys(constants)


def test_bfloat16_is_computed_in_float32():
    half = {
        name: tensor.bfloat16()
        for name, tensor in {
            "policy": POLICY,
            "old": 0.37 * OLD,  # far enough that the difference does not fit bfloat16
            "reference": REFERENCE,
            "advantage": ADVANTAGE,
        }.items()
    }
    single = {name: tensor.float() for name, tensor in half.items()}
    for level in ("token", "sequence"):
        result = policy.grpo(**half, **LAYOUT, level=level, beta=0.1)
        assert result.loss.dtype == torch.float32
        assert torch.equal(result.loss, policy.grpo(**single, **LAYOUT, level=level, beta=0.1).loss)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta": 0.1}, "beta=0.1 needs reference="),
        ({"level": "batch"}, "'batch'.*token or sequence"),
        ({"beta": 0.1, "reference": REFERENCE, "kl_weighting": "k3"}, "'k3'.*none or ratio"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        policy.grpo(policy=POLICY, old=OLD, advantage=ADVANTAGE, **LAYOUT, **wrong)
