"""Divergences of distillation against KLDivLoss, the definition, finite differences and
TRL's `generalized_jsd_loss`.
"""

import math
import warnings

import pytest
import torch

from align.objectives.distill import divergence, forward_kl, jensen_shannon, reverse_kl
from align.objectives.kl import kl

BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]
TEACHER = torch.tensor([0.4, 0.2, 0.4], dtype=torch.float64)
STUDENT = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
PAIR = {"student": STUDENT.log(), "teacher": TEACHER.log()}


def logits(seed, *shape):
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=draw, dtype=torch.float64)


def log_p(values):
    return values.log_softmax(-1)


def test_forward_and_reverse_are_torchs():
    loss = torch.nn.KLDivLoss(reduction="sum")
    torch.testing.assert_close(forward_kl(**PAIR), loss(STUDENT.log(), TEACHER), rtol=1e-14, atol=0)
    torch.testing.assert_close(reverse_kl(**PAIR), loss(TEACHER.log(), STUDENT), rtol=1e-14, atol=0)
    assert abs(forward_kl(**PAIR) - reverse_kl(**PAIR)) > 0.01


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jensen_shannon_is_its_definition(beta):
    mixture = beta * TEACHER + (1 - beta) * STUDENT
    expected = beta * kl(policy=TEACHER, reference=mixture)
    expected += (1 - beta) * kl(policy=STUDENT, reference=mixture)
    torch.testing.assert_close(jensen_shannon(**PAIR, beta=beta), expected, rtol=1e-13, atol=0)


def test_jensen_shannon_of_what_never_meets_is_the_entropy_of_beta():
    """ln 2 at a half, as a golden number."""
    apart = {
        "student": log_p(torch.tensor([60.0, 0.0])),
        "teacher": log_p(torch.tensor([0.0, 60.0])),
    }
    assert jensen_shannon(**apart, beta=0.5).item() == pytest.approx(math.log(2), rel=1e-6)
    expected = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert jensen_shannon(**apart, beta=0.2).item() == pytest.approx(expected, rel=1e-6)


def test_near_the_ends_it_is_the_kl_that_the_end_stands_for():
    small = 1e-6
    near = jensen_shannon(**PAIR, beta=small) / small
    torch.testing.assert_close(near, divergence(**PAIR, beta=0), rtol=1e-4, atol=0)
    near = jensen_shannon(**PAIR, beta=1 - small) / small
    torch.testing.assert_close(near, divergence(**PAIR, beta=1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.1])
def test_no_mixture_is_refused(beta):
    with pytest.raises(ValueError, match="between 0 and 1"):
        jensen_shannon(**PAIR, beta=beta)


@pytest.mark.parametrize("beta", BETAS)
def test_one_number_a_token_never_negative_and_zero_where_they_agree(beta):
    student, teacher = log_p(logits(1, 5, 7)), log_p(logits(2, 5, 7))
    values = divergence(student=student, teacher=teacher, beta=beta)
    assert values.shape == (5,) and (values > 0).all()
    for i in range(5):
        alone = divergence(student=student[i], teacher=teacher[i], beta=beta)
        torch.testing.assert_close(alone, values[i], rtol=1e-14, atol=0)
    same = divergence(student=teacher, teacher=teacher, beta=beta)
    torch.testing.assert_close(same, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("beta", BETAS)
def test_the_gradient_equals_finite_differences(beta):
    student, teacher = logits(1, 3, 5).requires_grad_(), log_p(logits(2, 3, 5))
    assert torch.autograd.gradcheck(
        lambda x: divergence(student=log_p(x), teacher=teacher, beta=beta), student
    )


@pytest.mark.parametrize("beta", BETAS)
def test_the_teacher_gets_no_gradient(beta):
    student, teacher = logits(1, 3, 5).requires_grad_(), logits(2, 3, 5).requires_grad_()
    divergence(student=log_p(student), teacher=log_p(teacher), beta=beta).sum().backward()
    assert teacher.grad is None and student.grad.norm() > 0.01


@pytest.mark.parametrize("beta", BETAS)
def test_half_precision_is_computed_in_float32(beta):
    student, teacher = log_p(logits(1, 4, 9)).bfloat16(), log_p(logits(2, 4, 9)).bfloat16()
    got = divergence(student=student, teacher=teacher, beta=beta)
    expected = divergence(student=student.double(), teacher=teacher.double(), beta=beta)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("beta", BETAS)
def test_value_and_gradient_are_trls(beta, temperature):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of vLLM's version
        from trl.experimental.gkd import GKDTrainer
    teacher = logits(2, 2, 4, 11)
    labels = torch.tensor([[1, -100, 3, 4], [-100, -100, 2, 1]])
    results = []
    for ours in (True, False):
        student = logits(1, 2, 4, 11).requires_grad_()
        if ours:
            each = divergence(
                student=log_p(student / temperature),
                teacher=log_p(teacher / temperature),
                beta=beta,
            )
            loss = each[labels != -100].sum() / 5
        else:
            loss = GKDTrainer.generalized_jsd_loss(
                student, teacher, labels, beta=beta, temperature=temperature
            )
        loss.backward()
        results.append((loss.detach(), student.grad))
    (mine, my_gradient), (theirs, their_gradient) = results
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(my_gradient, their_gradient, rtol=1e-10, atol=1e-14)
    assert their_gradient.norm() > 1e-3
