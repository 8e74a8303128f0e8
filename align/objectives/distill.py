"""Divergences of a student's token distribution from a teacher's, over the whole vocabulary.

    forward KL      KL(teacher || student)    the student covers all that the teacher does
    reverse KL      KL(student || teacher)    the student keeps to what the teacher does most
    generalised Jensen-Shannon of beta        between the two (GKD, arXiv 2306.13649, equation 1):
        beta KL(teacher || m) + (1 - beta) KL(student || m),   m = beta teacher + (1 - beta) student

Divided by beta, the last tends to the forward KL for beta to 0; divided by 1 - beta, to the reverse
one for beta to 1. At the ends it would be 0 itself, so 0 and 1 stand for those two here, as in TRL
1.16 (`generalized_jsd_loss`), whose values and gradients these are.

All take natural log-probabilities [..., V], finite, and return [...], one number a token. Gradients
flow through `student` alone.
"""

import math

import torch
from torch import Tensor

from align.objectives.reduce import at_least_float32


def forward_kl(*, student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student)."""
    return _kl(at_least_float32(teacher).detach(), at_least_float32(student))


def reverse_kl(*, student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student || teacher)."""
    return _kl(at_least_float32(student), at_least_float32(teacher).detach())


def jensen_shannon(*, student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon divergence, for 0 < beta < 1; at 0.5 the symmetric one."""
    if not 0 < beta < 1:
        raise ValueError(f"beta={beta} is no mixture: it must lie between 0 and 1")
    student, teacher = at_least_float32(student), at_least_float32(teacher).detach()
    mixture = torch.logaddexp(student + math.log1p(-beta), teacher + math.log(beta))
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def divergence(*, student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Forward KL at beta 0, reverse KL at 1, generalised Jensen-Shannon between."""
    if beta == 0:
        return forward_kl(student=student, teacher=teacher)
    if beta == 1:
        return reverse_kl(student=student, teacher=teacher)
    return jensen_shannon(student=student, teacher=teacher, beta=beta)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Sum of exp(p) (p - q) over the last axis."""
    return (p.exp() * (p - q)).sum(-1)
