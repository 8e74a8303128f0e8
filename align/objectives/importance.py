"""Importance weights for samples that another program drew.

The inference engine and the trainer hold the same weights and yet give a token different
probabilities (rounding, other kernels). Each token's loss is multiplied by trainer / sampler to
make the expectation right again, with the ratio truncated, or the outliers left out, because single
tokens are far off. The four modes equal the ones of TRL 1.16 (`vllm_importance_sampling_mode`); its
default is level="sequence", how="mask", high=3.
"""

from typing import Literal

import torch
from torch import Tensor

from align.objectives.reduce import at_least_float32, sequence_sum


@torch.no_grad()
def importance_weights(
    *,
    trainer: Tensor,
    sampler: Tensor,
    sequence: Tensor,
    lengths: Tensor,
    level: Literal["token", "sequence"] = "token",
    how: Literal["truncate", "mask"] = "truncate",
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """Constant weights for the tokens' losses, [C].

    trainer, sampler: [C] log-probabilities of the sampled tokens, both under the weights that
        sampled them; sampler may hold NaN where the engine gave none: such a token counts as one on
        which the two agree.
    level: "token" weighs each token by its own ratio; "sequence" weighs all tokens of a completion
        by the product of their ratios, which is unbiased and of high variance.
    how: "truncate" clamps the ratio to [low, high]; "mask" sets ratios outside to 0.
    low, high: bounds of the ratio, None for no bound. At least one is needed.

    Raises ValueError for an unknown level or mode, and where there is no bound at all.
    """
    if low is None and high is None:
        raise ValueError(
            "importance weights without a bound: give high= (3.0 is usual), low= or both"
        )
    log_ratio = at_least_float32(trainer) - at_least_float32(sampler)
    log_ratio = torch.where(torch.isnan(sampler), 0.0, log_ratio)
    if level == "sequence":
        log_ratio = sequence_sum(log_ratio, sequence=sequence, lengths=lengths)[sequence]
    elif level != "token":
        raise ValueError(f"unknown level {level!r}; choose token or sequence")
    ratio = log_ratio.exp()
    if how == "truncate":
        return ratio.clamp(min=low, max=high)
    if how == "mask":
        # Comparisons with NaN are false: a trainer gone wrong stays visible, not masked away.
        outside = torch.zeros_like(ratio, dtype=torch.bool)
        if low is not None:
            outside |= ratio < low
        if high is not None:
            outside |= ratio > high
        return ratio.masked_fill(outside, 0.0)
    raise ValueError(f"unknown mode {how!r}; choose truncate or mask")
