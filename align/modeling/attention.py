"""Attention over a shared-prefix pack on a CPU: each completion against its prompt and itself.

A dense [T, T] mask makes every layer compute all pairs of a pack's tokens, most of which may not
see each other. Here the pack's attention is cut into batches of small ones (prompts; completions of
similar length, each with its prompt's keys in front), padded among themselves only: the layers'
other products still run on the pack without padding. The backward pass is written out: for matrices
this small a fused kernel's takes several times as long on a CPU.

Registered with `transformers` as the attention implementation `shared_prefix`; without a plan, as
in `generate`, it is SDPA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from align.modeling.precision import computed_in
from align.packing import PAD, Pack

NAME = "shared_prefix"
# A batch costs about as much as this many pairs of a query and a key (SmolLM2, two cores).
BATCH_COST = 16_384

Span = tuple[int, int]  # a segment's first cell and its length


@dataclass(frozen=True, kw_only=True)
class Block:
    """N segments of similar length. query: LongTensor[N, L] and keys: LongTensor[N, K], cells of
    the pack (0 where padded); bias: Tensor[N, 1, L, K], 0 where a query may attend, else the lowest
    number.
    """

    query: Tensor
    keys: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a pack's attention is cut up. place: LongTensor[T], where each token's result stands
    among those of all blocks.
    """

    pack: Pack
    dtype: torch.dtype
    blocks: list[Block]
    place: Tensor

    @cached_property
    def mask(self) -> Tensor:
        """What the blocks replace, made where it is needed all the same."""
        return dense_mask(self.pack, self.dtype)


def dense_mask(pack: Pack, dtype: torch.dtype) -> Tensor:
    """Tensor[R, 1, T, T] to add to the scores."""
    allowed = pack.attention_mask()
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )


def plan(pack: Pack, dtype: torch.dtype) -> Plan | None:
    """The plan of a packed row; None for padded rows."""
    segment, prompt = pack.segment[0], pack.prompt[0]
    if pack.padded or len(pack.segment) > 1 or bool((segment == PAD).any()):
        return None
    sizes = torch.unique_consecutive(segment, return_counts=True)[1]
    ends = sizes.cumsum(0)
    spans = list(zip((ends - sizes).tolist(), sizes.tolist(), strict=True))
    first = int(segment[0])
    rows = []
    for i, span in enumerate(spans):
        owner = int(prompt[span[0]]) - first
        rows.append((spans[owner] if owner != i else (0, 0), span))
    place = torch.empty(len(segment), dtype=torch.long)
    blocks, offset = [], 0
    for batch in _batches(rows):
        block = _block(batch, dtype)
        for i, (_, (start, size)) in enumerate(batch):
            place[start : start + size] = torch.arange(size) + offset + i * block.query.shape[1]
        blocks.append(block)
        offset += block.query.numel()
    return Plan(pack=pack, dtype=dtype, blocks=blocks, place=place)


def _batches(rows: Sequence[tuple[Span, Span]]) -> Iterator[list[tuple[Span, Span]]]:
    """Rows (prompt, segment) of similar size; one ends where its padding costs more than another
    batch would.
    """
    batch: list[tuple[Span, Span]] = []
    needed = 0
    for row in sorted(rows, key=lambda row: (row[1][1], row[0][1]), reverse=True):
        own = row[1][1] * (row[0][1] + row[1][1])
        if batch and _pairs([*batch, row]) > needed + own + BATCH_COST:
            yield batch
            batch, needed = [], 0
        batch.append(row)
        needed += own
    yield batch


def _pairs(rows: Sequence[tuple[Span, Span]]) -> int:
    """Pairs of a query and a key that are computed for these rows together."""
    longest, prefix = _extent(rows)
    return len(rows) * longest * (prefix + longest)


def _extent(rows: Sequence[tuple[Span, Span]]) -> tuple[int, int]:
    """Of the longest segment and of the longest prompt before one."""
    return max(size for _, (_, size) in rows), max(before for (_, before), _ in rows)


def _block(rows: Sequence[tuple[Span, Span]], dtype: torch.dtype) -> Block:
    longest, prefix = _extent(rows)
    query = torch.zeros(len(rows), longest, dtype=torch.long)
    keys = torch.zeros(len(rows), prefix + longest, dtype=torch.long)
    seen = torch.zeros(len(rows), longest, prefix + longest, dtype=torch.bool)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    for i, ((before, length), (start, size)) in enumerate(rows):
        query[i, :size] = keys[i, prefix : prefix + size] = torch.arange(start, start + size)
        keys[i, :length] = torch.arange(before, before + length)
        seen[i, :, :length] = True
        # A padded query attends to its own cell, for a softmax over nothing is not a number.
        seen[i, :, prefix:] = causal
    bias = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    return Block(query=query, keys=keys, bias=bias.unsqueeze(1))


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    pack_plan: Plan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As `transformers` calls it; query: [1, heads, T, D]; returns [1, T, heads, D]."""
    if pack_plan is None or dropout:  # which is drawn in SDPA's order
        mask = attention_mask if pack_plan is None else pack_plan.mask
        return sdpa_attention_forward(
            module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dtype = computed_in(query.device, query.dtype)
    states = [each[0].transpose(0, 1).to(dtype) for each in (query * scale, key, value)]
    with torch.autocast(query.device.type, enabled=False):  # it would widen the softmax to float32
        outputs = [_Attention.apply(*states, block) for block in pack_plan.blocks]
    return torch.cat(outputs).index_select(0, pack_plan.place).unsqueeze(0), None


class _Attention(torch.autograd.Function):
    """softmax(q k + bias) v of a block. query: [T, heads, D], scaled; key, value: [T, kv heads, D];
    returns [N * L, heads, D]. Query heads that share a key head are rows of one matrix.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, block: Block) -> Tensor:
        heads, shared = query.shape[1], key.shape[1]
        q = _queries(query.index_select(0, block.query.flatten()), block, shared)
        k, v = (
            _keys(states.index_select(0, block.keys.flatten()), block) for states in (key, value)
        )
        weights = torch.bmm(q, k.transpose(1, 2))
        by_head = weights.view(len(block.query), heads, *block.bias.shape[2:])
        weights = by_head.add_(block.bias).softmax(-1).view_as(weights)
        out = torch.bmm(weights, v)
        ctx.save_for_backward(q, k, v, weights, out)
        ctx.block, ctx.cells = block, len(query)
        return _rows(out, block, heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, weights, out = ctx.saved_tensors
        block, heads = ctx.block, gradient.shape[1]
        g = _queries(gradient, block, len(k) // len(block.query))
        in_v = torch.bmm(weights.transpose(1, 2), g)
        scores = torch.bmm(g, v.transpose(1, 2))
        scores.sub_((g * out).sum(-1, keepdim=True)).mul_(weights)
        in_q = _rows(torch.bmm(scores, k), block, heads)
        in_k = torch.bmm(scores.transpose(1, 2), q)
        gradients = [_scattered(in_q, block.query, ctx.cells)]
        for each in (in_k, in_v):
            per_cell = each.unflatten(0, (len(block.keys), -1)).transpose(1, 2)
            gradients.append(_scattered(per_cell.flatten(0, 1), block.keys, ctx.cells))
        return gradients[0], gradients[1], gradients[2], None


def _queries(states: Tensor, block: Block, shared: int) -> Tensor:
    """[N * L, heads, D] -> [N * kv heads, query heads of each * L, D]."""
    count, length = block.query.shape
    per_head = states.view(count, length, shared, -1, states.shape[-1]).permute(0, 2, 3, 1, 4)
    return per_head.reshape(count * shared, -1, states.shape[-1])


def _rows(states: Tensor, block: Block, heads: int) -> Tensor:
    """The way back from `_queries`."""
    count, length = block.query.shape
    per_head = states.view(count, heads, length, states.shape[-1])
    return per_head.transpose(1, 2).reshape(count * length, heads, -1)


def _keys(states: Tensor, block: Block) -> Tensor:
    """[N * K, kv heads, D] -> [N * kv heads, K, D]."""
    count, length = block.keys.shape
    return states.view(count, length, *states.shape[1:]).transpose(1, 2).flatten(0, 1)


def _scattered(states: Tensor, cells: Tensor, count: int) -> Tensor:
    """Each row added to its cell, [count, heads, D]; padded cells' rows are zeros."""
    into = states.new_zeros(count, *states.shape[1:])
    return into.index_add_(0, cells.flatten(), states)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
