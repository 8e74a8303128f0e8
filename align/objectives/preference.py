"""Preference optimisation without a reward model: DPO, IPO, hinge on pairs, KTO on single rows.

All four work on the *log-ratio* of a completion, ln(policy / reference) summed over its tokens (end
token included); beta times that is the completion's implicit reward. Shapes: N pairs, or N rows for
KTO. Gradients flow through the log-ratios, so the caller subtracts the reference's
log-probabilities as constants; lengths and the reference point of KTO are constants here.

The losses equal TRL 1.16's `sigmoid`, `ipo`, `hinge` and `kto` once their mean is taken. Departs
from TRL in two points: label smoothing of `sigmoid` is cDPO's (TRL has none there; its `robust`
loss subtracts the flipped term and divides by 1 - 2 e), and KTO's 1 - sigmoid(x) is computed as
sigmoid(-x), which keeps the digits of a small loss that the difference rounds to 0.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from align.objectives.ranking import check_one_each
from align.objectives.reduce import at_least_float32

PairLoss = Literal["sigmoid", "ipo", "hinge"]


def pair_loss(
    *,
    chosen: Tensor,
    rejected: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    loss: PairLoss,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of each pair, [N].

    With d = chosen - rejected and e = label_smoothing:

        sigmoid  -(1 - e) ln sigmoid(beta d) - e ln sigmoid(-beta d)      DPO, 2305.18290, eq. 7
        hinge    max(0, 1 - beta d)                                       SLiC-HF, 2305.10425
        ipo      (chosen/length - rejected/length - 1/(2 beta))^2         IPO, 2310.12036, eq. 17

    chosen, rejected: [N] summed log-ratios of the pair's completions.
    chosen_lengths, rejected_lengths: [N] completion tokens. Read by `ipo` alone, which averages
        over tokens as TRL does (the paper sums; its authors confirmed the average to TRL).
    beta: how strongly the policy is held to the reference; the paper's tau in `ipo`, where a larger
        one asks for a *smaller* gap.
    label_smoothing: the share of pairs whose label is taken to be the wrong way round (cDPO,
        Mitchell 2023, "A note on DPO with noisy preferences"), below 0.5; `sigmoid` alone.

    Raises ValueError for an unknown loss, a beta that is not positive, a smoothing outside [0, 0.5)
    or with another loss than `sigmoid`, and where the four tensors are not one number a pair.
    """
    _check_beta(beta)
    _check_smoothing(label_smoothing, loss)
    check_one_each(
        chosen=chosen,
        rejected=rejected,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
    )
    chosen, rejected = at_least_float32(chosen), at_least_float32(rejected)
    match loss:
        case "sigmoid":
            reward = beta * (chosen - rejected)
            right, wrong = -F.logsigmoid(reward), -F.logsigmoid(-reward)
            return (1.0 - label_smoothing) * right + label_smoothing * wrong
        case "hinge":
            return torch.relu(1.0 - beta * (chosen - rejected))
        case "ipo":
            gap = chosen / chosen_lengths.clamp(min=1) - rejected / rejected_lengths.clamp(min=1)
            return (gap - 1.0 / (2.0 * beta)).square()
        case _:
            known = ", ".join(get_args(PairLoss))
            raise ValueError(f"unknown loss {loss!r}; choose one of: {known}")


def kto_loss(
    *,
    log_ratio: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """weight * (1 - sigmoid(+-beta (log_ratio - reference_point))), [N] (KTO, 2402.01306).

    Plus for a desirable completion, minus for an undesirable one, each with its weight.

    log_ratio: [N] summed log-ratios of the completions.
    desirable: [N] bool.
    reference_point: scalar of `kto_reference_point`, a constant: the log-ratio a completion must
        beat.

    Raises ValueError for a beta that is not positive, labels that are not bool, a reference point
    that is not a scalar, and where there is not one label a completion.
    """
    _check_beta(beta)
    check_one_each(log_ratio=log_ratio, desirable=desirable)
    if desirable.dtype != torch.bool:
        raise ValueError(
            f"desirable must be bool, got {desirable.dtype}; use labels == 1, or scores > threshold"
        )
    if reference_point.dim() != 0:
        raise ValueError(
            "reference_point must be one number for the whole batch, got shape "
            f"{list(reference_point.shape)}; use kto_reference_point(log_ratio)"
        )
    reward = beta * (at_least_float32(log_ratio) - reference_point.detach())
    return torch.where(
        desirable,
        desirable_weight * torch.sigmoid(-reward),
        undesirable_weight * torch.sigmoid(reward),
    )


@torch.no_grad()
def kto_reference_point(log_ratio: Tensor) -> Tensor:
    """Mean log-ratio of mismatched completions, not below 0: a scalar without gradient.

    An estimate of KL(policy || reference) that does not look at the completions being judged
    (2402.01306). TRL gives every prompt the completion of the row before it in the
    batch, the first one that of the last.

    log_ratio: [N], of *all* ranks and micro-batches: the mean is held at 0, not its parts.

    Raises ValueError where there is none.
    """
    if log_ratio.numel() == 0:
        raise ValueError(
            "no log-ratios to average; pass that of at least one mismatched completion"
        )
    return at_least_float32(log_ratio).mean().clamp(min=0.0)


def _check_beta(beta: float) -> None:
    if not beta > 0.0:
        raise ValueError(f"beta must be positive, got {beta}; 0.1 is usual")


def _check_smoothing(label_smoothing: float, loss: str) -> None:
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing={label_smoothing} is not a share of wrong labels in [0, 0.5); "
            "pass 0 for none, 0.1 is usual"
        )
    if label_smoothing != 0.0 and loss != "sigmoid":
        raise ValueError(
            f"label_smoothing={label_smoothing} has no meaning for loss {loss!r}; "
            "pass label_smoothing=0, or loss='sigmoid'"
        )
