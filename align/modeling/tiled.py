"""Log-probability and entropy of chosen tokens on a CPU, a tile of logits at a time.

Products of matrices want many rows; what is done to each logit wants few, for they then stay in
the cache. So logits are made in chunks of at most `CHUNK_BYTES`, and worked on in tiles of
`TILE_BYTES`. Where all tokens are one chunk its probabilities are kept for the backward pass, in
the precision of the products; else, and where the entropy has a gradient or logits a soft cap, the
backward pass makes the logits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 2**28
TILE_BYTES = 2**22  # of float32


@dataclass(frozen=True, kw_only=True)
class Transform:
    """What an architecture does to its logits before the softmax, and the temperature after."""

    temperature: float = 1.0
    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Of a copy in float32, or in float64 where the logits are."""
        made = logits.to(_precise(logits.dtype), copy=True)
        if self.softcap is None:
            factor = self.scale / self.temperature
            return made if factor == 1.0 else made.mul_(factor)
        made.mul_(self.scale / self.softcap).tanh_()
        return made.mul_(self.softcap / self.temperature)

    def slope(self, transformed: Tensor) -> Tensor | float:
        """The derivative where `transformed` came out."""
        factor = self.scale / self.temperature
        if self.softcap is None:
            return factor
        return (1 - (transformed * (self.temperature / self.softcap)).square()).mul_(factor)


class TiledLogProbs(torch.autograd.Function):
    """(log-probability, entropy) of each target, two float32 Tensors [C], the second empty where it
    is not wanted. hidden: [C, H]; weight: [V, H]; bias: [V] or None; dtype: of their products;
    backward: whether a backward pass may follow.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        dtype: torch.dtype,
        transform: Transform,
        entropy: bool,
        entropy_gradient: bool,
        backward: bool,
    ) -> tuple[Tensor, Tensor]:
        count, vocabulary = len(hidden), len(weight)
        ctx.dtypes = [None if each is None else each.dtype for each in (hidden, weight, bias)]
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        precise = _precise(dtype)
        chosen, normaliser = (hidden.new_empty(count, dtype=precise) for _ in range(2))
        spread = hidden.new_empty(count if entropy else 0, dtype=precise)
        keep = backward and not entropy_gradient and transform.softcap is None
        kept = None
        for chunk in _slices(0, count, vocabulary * hidden.element_size(), CHUNK_BYTES):
            logits = _logits(hidden[chunk], weight, bias)
            for tile in _slices(chunk.start, chunk.stop, 4 * vocabulary, TILE_BYTES):
                raw = logits[tile.start - chunk.start : tile.stop - chunk.start]
                x = transform(raw)
                top = x.amax(1, keepdim=True)
                own = x.sub_(top).gather(1, target[tile, None])
                odds = x.exp()
                total = odds.sum(1, keepdim=True)
                chosen[tile] = (own - total.log()).squeeze(1)
                normaliser[tile] = (top + total.log()).squeeze(1)
                if entropy:
                    spread[tile] = (total.log() - x.mul_(odds).sum(1, keepdim=True) / total)[:, 0]
                if keep and len(logits) == count:
                    torch.div(odds, total, out=odds)
                    kept = logits
                    raw.copy_(odds)
        ctx.save_for_backward(hidden, weight, bias, target, chosen, normaliser, spread)
        ctx.transform, ctx.kept, ctx.has_entropy_gradient = transform, kept, entropy_gradient
        if not entropy_gradient:
            ctx.mark_non_differentiable(spread)
        return chosen, spread

    @staticmethod
    def backward(ctx: Any, in_chosen: Tensor, in_spread: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors[:2]
        needed = ctx.needs_input_grad[:3]
        in_hidden = torch.empty_like(hidden)
        in_weight: Tensor | None = None
        in_bias = hidden.new_zeros(len(weight), dtype=_precise(hidden.dtype))
        for chunk in _slices(0, len(hidden), len(weight) * hidden.element_size(), CHUNK_BYTES):
            if ctx.kept is None:
                logits = _again(ctx, chunk, in_chosen, in_spread)
            else:
                logits = _from_kept(ctx, in_chosen)
            if needed[0]:
                in_hidden[chunk] = logits @ weight
            if needed[1]:
                part = logits.T @ hidden[chunk]
                # Summed in float32; zeros to begin with would cost as much as the product.
                in_weight = part.to(in_bias.dtype) if in_weight is None else in_weight.add_(part)
            if needed[2]:
                in_bias += logits.sum(0, dtype=in_bias.dtype)
        if in_weight is None and needed[1]:  # nothing was to be scored
            in_weight = torch.zeros_like(weight)
        made = [
            gradient.to(dtype) if need and gradient is not None else None
            for gradient, dtype, need in zip(
                (in_hidden, in_weight, in_bias), ctx.dtypes, needed, strict=True
            )
        ]
        return (*made, *(None,) * 6)


def _precise(dtype: torch.dtype) -> torch.dtype:
    """What sums and exponentials are computed in."""
    return torch.promote_types(dtype, torch.float32)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return hidden @ weight.T if bias is None else torch.addmm(bias, hidden, weight.T)


def _from_kept(ctx: Any, in_chosen: Tensor) -> Tensor:
    """The loss's gradient by all logits, made of the kept probabilities, in place: they are as
    large as everything else here together.
    """
    *_, target, chosen, _, _ = ctx.saved_tensors
    logits, ctx.kept = ctx.kept, None
    factor = -in_chosen * ctx.transform.slope(chosen)
    logits.mul_(factor[:, None].to(logits.dtype))
    # Not 1 - p of a rounded p, which is mostly rounding where p is close to 1.
    at_target = factor * torch.expm1(chosen)
    return logits.scatter_(1, target[:, None], at_target[:, None].to(logits.dtype))


def _again(ctx: Any, chunk: slice, in_chosen: Tensor, in_spread: Tensor) -> Tensor:
    """The loss's gradient by a chunk's logits."""
    hidden, weight, bias, target, chosen, normaliser, spread = ctx.saved_tensors
    logits = _logits(hidden[chunk], weight, bias)
    for tile in _slices(chunk.start, chunk.stop, 4 * len(weight), TILE_BYTES):
        raw = logits[tile.start - chunk.start : tile.stop - chunk.start]
        x = ctx.transform(raw)
        slope = ctx.transform.slope(x)
        log_p = x.sub_(normaliser[tile, None])
        p = log_p.exp()
        gradient = p * -in_chosen[tile, None]
        at_target = -in_chosen[tile] * torch.expm1(chosen[tile])
        gradient.scatter_(1, target[tile, None], at_target[:, None])
        if ctx.has_entropy_gradient:
            gradient -= in_spread[tile, None] * p * (log_p + spread[tile, None])
        raw.copy_(gradient.mul_(slope))
    return logits


def _slices(start: int, stop: int, row_bytes: int, most: int) -> Iterator[slice]:
    """Cut so that each is of at most `most` bytes, or of one row; of nothing, none."""
    rows = max(1, most // row_bytes)
    for first in range(start, stop, rows):
        yield slice(first, min(first + rows, stop))
