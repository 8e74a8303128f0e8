"""The one place where a mean is taken: loss = sum over tokens of weight * token loss.

A mean taken per micro-batch depends on how the batch was cut. Here each token's weight follows from
counts over the whole optimizer step (all ranks, all micro-batches), known before the first forward,
so the loss and its gradient are sums and any cut gives the same total.

    grpo      1 / (length_i * sequences)    mean over sequences of the token mean    2402.03300
    bnpo      1 / tokens                    mean over this optimizer step's tokens
    dapo      1 / tokens                    with `tokens_per_step` of the rollout    2503.14476
    dr_grpo   1 / (max_tokens * sequences)  constant length                          2503.20783

Departs from TRL 1.16 in one row: its `bnpo` takes the token mean of every micro-batch on every rank
by itself, so it changes with the batch size per device. Ours counts the tokens of the whole
optimizer step; the two agree where the step is one micro-batch on one rank. The other rows equal
TRL's.

Sums are meant to be *added* over micro-batches and ranks. Data-parallel wrappers average gradients
over ranks: the caller multiplies by the number of ranks there.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

Reduction = Literal["grpo", "bnpo", "dapo", "dr_grpo"]


def token_weights(
    lengths: Tensor,
    how: Reduction,
    *,
    sequences: int | None = None,
    tokens: float | None = None,
    max_tokens: int | None = None,
) -> Tensor:
    """The weight every completion token of a sequence gets, [N] float32.

    lengths: [N], completion tokens of the sequences at hand.
    sequences: how many sequences this optimizer step has over all ranks and micro-batches, those
        included that are not computed because their advantage is zero. Read by `grpo` and
        `dr_grpo`.
    tokens: completion tokens of this optimizer step, counted in the same way (`bnpo`), or
        `tokens_per_step` (`dapo`).
    max_tokens: the longest completion allowed. Read by `dr_grpo`.

    Raises ValueError for an unknown reduction, and for a count it needs that is missing or not
    positive.
    """
    match how:
        case "grpo":
            # An empty sequence has no token to weigh; the clamp keeps its unused weight finite.
            return 1.0 / (lengths.clamp(min=1).float() * _count(how, sequences=sequences))
        case "bnpo" | "dapo":
            scale = _count(how, tokens=tokens)
        case "dr_grpo":
            scale = _count(how, sequences=sequences) * _count(how, max_tokens=max_tokens)
        case _:
            known = ", ".join(get_args(Reduction))
            raise ValueError(f"unknown reduction {how!r}; choose one of: {known}")
    return torch.full(lengths.shape, 1.0 / scale, dtype=torch.float32, device=lengths.device)


def tokens_per_step(*, rollout_tokens: int, optimizer_steps: int) -> float:
    """The token count of DAPO's mean: the rollout's completion tokens, spread evenly over its
    optimizer steps.

    `bnpo` weighs a token by 1 / (tokens of its own minibatch), so in a minibatch of short
    completions each token counts more. With this count every token of the rollout weighs the same,
    whichever minibatch it falls in, and one pass over the rollout still adds up to
    `optimizer_steps` means. TRL's `num_items_in_batch` is `rollout_tokens`, which it divides by
    `steps_per_generation / gradient_accumulation_steps`.
    """
    if optimizer_steps < 1:
        raise ValueError(f"optimizer_steps must be at least 1, got {optimizer_steps}")
    return rollout_tokens / optimizer_steps


def weighted_sum(values: Tensor, weights: Tensor, *, sequence: Tensor) -> Tensor:
    """Sum of values[c] * weights[sequence[c]], a scalar: the loss of what is at hand.

    values: [C]; weights: [N] of `token_weights`; sequence: [C].
    """
    return (at_least_float32(values) * weights[sequence]).sum()


def sequence_sum(values: Tensor, *, sequence: Tensor, lengths: Tensor) -> Tensor:
    """Sum over the tokens of each sequence, [N]; 0 for an empty one. values, sequence: [C]."""
    values = at_least_float32(values)
    return values.new_zeros(lengths.shape).index_add(0, sequence, values)


def sequence_mean(values: Tensor, *, sequence: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the tokens of each sequence, [N]; 0 for an empty one. values, sequence: [C]."""
    return sequence_sum(values, sequence=sequence, lengths=lengths) / lengths.clamp(min=1)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision and integers become float32; float32 and float64 stay as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _count(how: str, **named: float | None) -> float:
    """The one count in `named`, or an error that says which reduction misses what."""
    ((name, value),) = named.items()
    if value is None or not value > 0:
        raise ValueError(
            f"reduction {how!r} needs a positive {name}=, got {value}; "
            "count over all ranks and micro-batches of the optimizer step"
        )
    return float(value)
