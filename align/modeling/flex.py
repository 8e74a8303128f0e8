"""FlexAttention over a shared-prefix pack on a GPU: which blocks of the mask are looked at.

PyTorch's own `create_block_mask` computes the mask cell by cell, [T, T], for every pack. Here the
blocks follow from the segments: a block of queries sees what came before it in two places, its
first cell's segment and that segment's prompt, for everything else that it sees begins inside it.
So a pack's blocks cost two comparisons of [T / 128, T / 128].

Registered with `transformers` as the attention implementation `shared_prefix_flex`: its
`flex_attention`, with query and key in the value's type. Under autocast the rotary embedding makes
them float32 again, which the kernel would multiply at a fraction of the speed, if it took them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.masking_utils import flex_attention_mask

from align.packing import PAD, Pack

NAME = "shared_prefix_flex"
BLOCK = 128  # cells along a side


def filled(pack: Pack) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ids, positions, segments and prompts, [R, T'], to the next multiple of a block: a kernel for
    such lengths does not look for the end, and one compiled serves many packs.
    """
    missing = -pack.segment.shape[1] % BLOCK
    cells = ((pack.input_ids, 0), (pack.position_ids, 0), (pack.segment, PAD), (pack.prompt, PAD))
    ids, positions, segment, prompt = (pad(one, (0, missing), value=fill) for one, fill in cells)
    return ids, positions, segment, prompt


def block_mask(segment: Tensor, prompt: Tensor) -> BlockMask:
    """The rule of `Pack.attention_mask` for segments [R, T], T a multiple of `BLOCK`.

    Cells of no segment see each other, so that no row of the softmax is empty.
    """

    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        mine = segment[row, query] == segment[row, key]
        return ((prompt[row, query] == segment[row, key]) | mine) & (query >= key)

    some, every = _blocks(segment, prompt)
    partial = some & ~every
    return BlockMask.from_kv_blocks(
        *_listed(partial),
        *_listed(every),
        BLOCK_SIZE=BLOCK,
        mask_mod=allowed,
        seq_lengths=(segment.shape[1], segment.shape[1]),
    )


def _blocks(segment: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks in which some cell may be seen, and those (not all of them) in which every one may:
    BoolTensor[R, N, N], queries by keys.

    Segments are numbered as they come, so a block holds those between its first and its last.
    """
    unseen = torch.iinfo(segment.dtype).max  # after all others, as these cells are
    number = segment.masked_fill(segment == PAD, unseen).unflatten(1, (-1, BLOCK))
    owner = prompt.masked_fill(prompt == PAD, unseen).unflatten(1, (-1, BLOCK))
    first, last = number[:, :, 0], number[:, :, -1]
    before = torch.ones(2 * first.shape[1:], dtype=torch.bool, device=segment.device).tril(-1)

    def holds(wanted: Tensor) -> Tensor:
        """Whether a block of keys has a cell of the segment that each block of queries wants."""
        return (first[:, None] <= wanted[..., None]) & (wanted[..., None] <= last[:, None])

    def fills(wanted: Tensor) -> Tensor:
        return (first[:, None] == wanted[..., None]) & (last[:, None] == wanted[..., None])

    own, shared = first, owner[:, :, 0]
    diagonal = torch.eye(first.shape[1], dtype=torch.bool, device=segment.device)
    some = ((holds(own) | holds(shared)) & before) | diagonal
    one_segment = (first == last)[..., None]
    one_group = (owner[:, :, 0] == owner[:, :, -1])[..., None]
    every = (fills(own) & one_segment) | (fills(shared) & one_group)
    return some, every & before


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many of each row, and their places in front: int32 [R, 1, N] and [R, 1, N, N]."""
    flags = blocks.to(torch.int32)[:, None]
    places = flags.argsort(dim=-1, descending=True, stable=True)
    return flags.sum(-1, dtype=torch.int32), places.to(torch.int32).contiguous()


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """As `transformers` calls it; query: [R, heads, T, D]; returns [R, T, heads, D]."""
    same = value.dtype
    return flex_attention_forward(
        module, query.to(same), key.to(same), value, attention_mask, **kwargs
    )


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, flex_attention_mask)
