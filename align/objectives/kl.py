"""Divergence of the policy from a reference: exact, and estimated from the sampled tokens.

The direction is always KL(policy || reference). The estimators look at one sample drawn from the
policy (Schulman 2020, "Approximating KL divergence"): the expectations of k1 and k3 over the policy
are the exact KL, that of k2 is not. Differentiated as *losses* they change places: the expected
gradient of k1 is zero, that of k2 is the gradient of KL(policy || reference), and that of k3 is the
gradient of KL(reference || policy), the other direction, unless it is weighted by the policy's
ratio (`policy.kl_penalty`).

The estimators take the log-probabilities of the sampled tokens, any shape, and return that shape.
Gradients flow through `policy` alone.
"""

import torch
from torch import Tensor

from align.objectives.reduce import at_least_float32


def kl(*, policy: Tensor, reference: Tensor) -> Tensor:
    """Sum of p ln(p/q) over the last axis, [...]. Takes probabilities, [..., V], not their logs.

    Nothing is normalised: of weights that do not sum to 1 it is the plain sum. An outcome the
    policy never takes adds 0; one that only the reference never takes makes it infinite.
    """
    p = at_least_float32(policy)
    q = at_least_float32(reference).detach()
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def k1(*, policy: Tensor, reference: Tensor) -> Tensor:
    """ln(policy / reference): unbiased, may be negative."""
    return at_least_float32(policy) - at_least_float32(reference).detach()


def k2(*, policy: Tensor, reference: Tensor) -> Tensor:
    """Half of k1 squared: biased, never negative, of low variance near the reference."""
    return 0.5 * k1(policy=policy, reference=reference).square()


def k3(*, policy: Tensor, reference: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1: unbiased and never negative."""
    log_ratio = k1(policy=policy, reference=reference)
    # expm1 keeps the digits that exp(x) - 1 loses close to the reference, where a run starts.
    return torch.expm1(-log_ratio) + log_ratio
