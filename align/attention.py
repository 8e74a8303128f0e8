"""Attention over a shared-prefix pack on a CPU: each completion against its prompt and itself.

A dense [T, T] mask makes every layer compute all pairs of a pack's tokens, most of which may not
see each other. Here the pack's attention is cut into two batches of small ones (all prompts; all
completions, each with its prompt's keys in front), padded among themselves only: the layers' other
products still run on the pack without padding. Where lengths are so uneven that this would compute
more pairs than the dense mask, the dense mask is used.

Registered with `transformers` as the attention implementation `shared_prefix`; without a plan, as
in `generate`, it is SDPA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from align.packing import PAD, Pack

NAME = "shared_prefix"


@dataclass(frozen=True, kw_only=True)
class Block:
    """N segments of the same kind. query: LongTensor[N, L] and keys: LongTensor[N, K], cells of the
    pack (0 where padded); bias: Tensor[N, 1, L, K], 0 where a query may attend, else the lowest
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

    blocks: list[Block]
    place: Tensor


def plan(pack: Pack, dtype: torch.dtype) -> Plan | None:
    """The plan of a packed row; None where the dense mask computes no more pairs."""
    segment, prompt = pack.segment[0], pack.prompt[0]
    if pack.padded or len(pack.segment) > 1 or bool((segment == PAD).any()):
        return None
    sizes = torch.unique_consecutive(segment, return_counts=True)[1]
    ends = sizes.cumsum(0)
    spans = list(zip((ends - sizes).tolist(), sizes.tolist(), strict=True))
    owner = [int(prompt[start]) for start, _ in spans]
    first = int(segment[0])
    prompts = [([], span) for i, span in enumerate(spans) if owner[i] == first + i]
    completions = [
        (spans[owner[i] - first], span) for i, span in enumerate(spans) if owner[i] != first + i
    ]
    rows = [kind for kind in (prompts, completions) if kind]
    width = len(segment)
    if sum(_pairs(kind) for kind in rows) >= width * width:
        return None
    blocks = [_block(kind, dtype) for kind in rows]
    place = torch.empty(width, dtype=torch.long)
    offset = 0
    for kind, block in zip(rows, blocks, strict=True):
        length = block.query.shape[1]
        for i, (_, (start, size)) in enumerate(kind):
            place[start : start + size] = torch.arange(size) + offset + i * length
        offset += block.query.numel()
    return Plan(blocks=blocks, place=place)


def _pairs(rows: list[Any]) -> int:
    longest = max(size for _, (_, size) in rows)
    prefix = max(before[1] if before else 0 for before, _ in rows)
    return len(rows) * longest * (prefix + longest)


def _block(rows: list[Any], dtype: torch.dtype) -> Block:
    longest = max(size for _, (_, size) in rows)
    prefix = max(before[1] if before else 0 for before, _ in rows)
    query = torch.zeros(len(rows), longest, dtype=torch.long)
    keys = torch.zeros(len(rows), prefix + longest, dtype=torch.long)
    seen = torch.zeros(len(rows), longest, prefix + longest, dtype=torch.bool)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    for i, (before, (start, size)) in enumerate(rows):
        query[i, :size] = keys[i, prefix : prefix + size] = torch.arange(start, start + size)
        if before:
            keys[i, : before[1]] = torch.arange(before[0], before[0] + before[1])
            seen[i, :, : before[1]] = True
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
    if pack_plan is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    groups = getattr(module, "num_key_value_groups", 1)
    outputs = []
    for block in pack_plan.blocks:
        attended = _attend(
            _gather(query, block.query),
            repeat_kv(_gather(key, block.keys), groups),
            repeat_kv(_gather(value, block.keys), groups),
            block.bias,
            scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
            dropout=dropout,
        )
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, pack_plan.place).unsqueeze(0), None


def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *, scale: float, dropout: float
) -> Tensor:
    """softmax(scale q k + bias) v, [N, heads, L, D], written out: for matrices this small the fused
    kernel's backward pass takes 3.5 times as long on a CPU.
    """
    scores = torch.matmul(query, key.transpose(-1, -2)) * scale + bias.to(query.dtype)
    precise = torch.promote_types(query.dtype, torch.float32)
    weights = scores.softmax(-1, dtype=precise).to(query.dtype)
    return torch.matmul(functional.dropout(weights, dropout), value)


def _gather(states: Tensor, cells: Tensor) -> Tensor:
    """[1, heads, T, D] -> [N, heads, L, D]."""
    rows = states[0].transpose(0, 1).index_select(0, cells.flatten())
    return rows.unflatten(0, cells.shape).transpose(1, 2)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
