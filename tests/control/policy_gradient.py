"""-A ln(policy) of fresh samples, by the library's CISPO: their own log-probabilities are the old
ones, so every ratio is 1 and its weight as well (what is left is REINFORCE, as `cispo` says)."""

from torch import Tensor

from align.objectives.policy import cispo, token_log_ratio


def policy_gradient(log_prob: Tensor, *, advantage: Tensor) -> Tensor:
    """Unreduced, the shape of log_prob and advantage."""
    log_ratio = token_log_ratio(policy=log_prob, old=log_prob)
    return cispo(log_ratio, policy=log_prob, advantage=advantage, ratio_max=1.0)
