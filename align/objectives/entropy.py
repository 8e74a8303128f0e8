"""Entropy of a distribution in nats, and the bonus that rewards it."""

import torch
from torch import Tensor

from align.objectives.reduce import at_least_float32


def entropy(probabilities: Tensor) -> Tensor:
    """-sum of p ln p over the last axis, [...]; where p is 0 it adds 0. probabilities: [..., V]."""
    return torch.special.entr(at_least_float32(probabilities)).sum(-1)


def entropy_of_logits(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits), [...]. logits: [..., V], divided by the temperature already.

    A logit of -inf (an action ruled out) adds nothing to the entropy or its gradient.
    """
    log_p = torch.log_softmax(at_least_float32(logits), dim=-1)
    # 0 * -inf is not a number; a finite floor makes product and gradient the 0 they tend to.
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(-1)


def entropy_bonus(entropy: Tensor, *, coefficient: float) -> Tensor:
    """-coefficient * entropy, unreduced: the term to *add* to a loss that is minimised.

    A positive coefficient makes the policy explore more. The sign is often printed wrong.
    """
    return -coefficient * at_least_float32(entropy)
