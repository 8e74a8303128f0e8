"""Policy-gradient losses per token: PPO's clip and penalty, GRPO, GSPO, CISPO.

Each loss is built from a *log-ratio* ln(policy / old) per token, [C]: a token's own
(`token_log_ratio`: PPO, GRPO) or its completion's mean (`sequence_log_ratio`: GSPO). `grpo` puts
the pieces together and is what a stage calls; the advantage is one number a token,
`advantage[sequence]` where it is one a completion. `reduce` takes the mean.

Conventions, each as in TRL 1.16 unless said:
- The clip bounds are 1 - epsilon_low and 1 + epsilon_high on the ratio. `ratio_max` of CISPO bounds
  the ratio itself (5.0 in ScaleRL, 2510.13786) and there is no lower bound; TRL passes it under the
  name `epsilon_high`.
- The importance correction multiplies the policy's term, not the KL term.
- The KL term is beta * k3, as in the GRPO paper. TRL by default (`use_bias_correction_kl`)
  multiplies k3 by the ratio; here that is `kl_weighting="ratio"`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from align.objectives.kl import k3
from align.objectives.reduce import at_least_float32, sequence_mean

Level = Literal["token", "sequence"]
KLWeighting = Literal["none", "ratio"]


@dataclass(frozen=True, kw_only=True)
class TokenLoss:
    """What `grpo` returns, all [C] and unreduced.

    loss: the loss of each token.
    clipped: bool, true where the clip left the policy's term no gradient, or where CISPO held the
        weight at its bound.
    kl: k3 against the reference without beta or weight, detached; None without a reference.
    """

    loss: Tensor
    clipped: Tensor
    kl: Tensor | None


def grpo(
    *,
    policy: Tensor,
    old: Tensor,
    advantage: Tensor,
    sequence: Tensor,
    lengths: Tensor,
    level: Level = "token",
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    ratio_max: float | None = None,
    correction: Tensor | None = None,
    reference: Tensor | None = None,
    beta: float = 0.0,
    kl_weighting: KLWeighting = "none",
) -> TokenLoss:
    """The loss of every completion token: surrogate * correction + beta * KL (2402.03300, eq. 3).

    policy, old, reference: [C] log-probabilities of the tokens under the weights being trained,
        those that sampled the rollout (`policy.detach()` where they are the same), and the frozen
        reference.
    level: "token" is PPO's and GRPO's ratio, "sequence" is GSPO's.
    ratio_max: None for the PPO clip with epsilon_low and epsilon_high; a number for CISPO, which
        reads no epsilon.
    correction: [C] of `importance_weights`, or None.
    beta, kl_weighting: see `kl_penalty`; beta > 0 needs a reference.

    Raises ValueError for an unknown level or weighting, and for beta without a reference.
    """
    if beta != 0.0 and reference is None:
        raise ValueError(f"beta={beta} needs reference= log-probabilities; pass them, or beta=0")
    log_ratio = _log_ratio(level, policy=policy, old=old, sequence=sequence, lengths=lengths)
    if ratio_max is None:
        bounds = {"epsilon_low": epsilon_low, "epsilon_high": epsilon_high}
        loss = clipped_surrogate(log_ratio, advantage=advantage, **bounds)
        clipped = is_clipped(log_ratio, advantage=advantage, **bounds)
    else:
        loss = cispo(log_ratio, policy=policy, advantage=advantage, ratio_max=ratio_max)
        clipped = log_ratio.detach().exp() > ratio_max
    if correction is not None:
        loss = loss * correction.detach()
    if reference is None:
        return TokenLoss(loss=loss, clipped=clipped, kl=None)
    pair = {"policy": policy, "reference": reference}
    if beta != 0.0:
        weight = _kl_weight(kl_weighting, log_ratio)
        loss = loss + kl_penalty(**pair, beta=beta, log_ratio=weight)
    return TokenLoss(loss=loss, clipped=clipped, kl=k3(**pair).detach())


def token_log_ratio(*, policy: Tensor, old: Tensor) -> Tensor:
    """ln(policy / old) of each token, [C]; `old` is a constant."""
    return at_least_float32(policy) - at_least_float32(old).detach()


def sequence_log_ratio(*, policy: Tensor, old: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """Mean of ln(policy / old) over a completion, at each of its tokens, [C] (GSPO, 2507.18071).

    policy, old, sequence: [C]; lengths: [N]. All tokens of a completion must be at hand together.
    Every token of the completion receives gradient through the shared mean; where advantage and
    weight are the same on all tokens of a completion this equals the paper's per-token form
    (GSPO-token, with its stopped gradient); where they are not, it is what TRL does.
    """
    log_ratio = token_log_ratio(policy=policy, old=old)
    return sequence_mean(log_ratio, sequence=sequence, lengths=lengths)[sequence]


def clipped_surrogate(
    log_ratio: Tensor, *, advantage: Tensor, epsilon_low: float, epsilon_high: float
) -> Tensor:
    """-min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A), unreduced (PPO, 1707.06347, eq. 7).

    Any shape, log_ratio and advantage alike.
    """
    ratio = at_least_float32(log_ratio).exp()
    advantage = at_least_float32(advantage).detach()
    held = ratio.clamp(1.0 - epsilon_low, 1.0 + epsilon_high)
    return -torch.minimum(ratio * advantage, held * advantage)


@torch.no_grad()
def is_clipped(
    log_ratio: Tensor, *, advantage: Tensor, epsilon_low: float, epsilon_high: float
) -> Tensor:
    """True where the clip leaves `clipped_surrogate` no gradient; bool, same shape.

    A ratio outside on the side the advantage pushes *back* from is not clipped: the minimum keeps
    its gradient.
    """
    ratio = at_least_float32(log_ratio).exp()
    too_low = (ratio < 1.0 - epsilon_low) & (advantage < 0)
    too_high = (ratio > 1.0 + epsilon_high) & (advantage > 0)
    return too_low | too_high


def cispo(log_ratio: Tensor, *, policy: Tensor, advantage: Tensor, ratio_max: float) -> Tensor:
    """-min(r, ratio_max) A ln(policy) with the ratio a constant, unreduced (CISPO, 2506.13585).

    REINFORCE with a truncated importance weight: a token beyond the bound keeps a gradient, of
    bounded size. The value of the loss means nothing, its gradient does. log_ratio, policy
    (log-probabilities), advantage: same shape.
    """
    weight = at_least_float32(log_ratio).detach().exp().clamp(max=ratio_max)
    return -weight * at_least_float32(advantage).detach() * at_least_float32(policy)


def kl_penalty(
    *, policy: Tensor, reference: Tensor, beta: float, log_ratio: Tensor | None = None
) -> Tensor:
    """beta * k3 of each token, unreduced. policy, reference: log-probabilities, same shape.

    With `log_ratio` it is multiplied by that ratio, which stays differentiable (DeepSeek-V3.2,
    2512.02556): the expected gradient is then that of KL(policy || reference), also off-policy,
    where plain k3 follows the other direction.
    """
    penalty = beta * k3(policy=policy, reference=reference)
    return penalty if log_ratio is None else penalty * at_least_float32(log_ratio).exp()


def ppo_penalty(log_ratio: Tensor, *, advantage: Tensor, kl: Tensor, beta: float) -> Tensor:
    """-r A + beta KL, unreduced (PPO, 1707.06347, eq. 8). kl: KL(old || policy), differentiable."""
    surrogate = at_least_float32(log_ratio).exp() * at_least_float32(advantage).detach()
    return beta * at_least_float32(kl) - surrogate


def adapt_beta(beta: float, *, kl: float, target: float) -> float:
    """The next beta of `ppo_penalty`: half if kl < target / 1.5, double if kl > 1.5 * target."""
    if kl < target / 1.5:
        return beta / 2.0
    if kl > target * 1.5:
        return beta * 2.0
    return beta


def _log_ratio(
    level: Level, *, policy: Tensor, old: Tensor, sequence: Tensor, lengths: Tensor
) -> Tensor:
    if level == "token":
        return token_log_ratio(policy=policy, old=old)
    if level == "sequence":
        return sequence_log_ratio(policy=policy, old=old, sequence=sequence, lengths=lengths)
    raise ValueError(f"unknown level {level!r}; choose token or sequence")


def _kl_weight(weighting: KLWeighting, log_ratio: Tensor) -> Tensor | None:
    if weighting == "none":
        return None
    if weighting == "ratio":
        return log_ratio
    raise ValueError(f"unknown kl_weighting {weighting!r}; choose none or ratio")
