"""A backbone's hidden states of a pack, which every head reads: the policy's, the reward model's,
the critic's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align import attention as shared_prefix
from align.packing import Pack


def hidden_states(
    model: PreTrainedModel, pack: Pack, *, plans: bool, autocast: torch.dtype | None
) -> Tensor:
    """The last layer's states of all cells, [R * T, H].

    plans: the pack's attention is cut up by group where that is less work (`align.attention`).
    """
    with precision(pack.input_ids.device, autocast):
        states = model.base_model(
            input_ids=pack.input_ids,
            position_ids=pack.position_ids,
            use_cache=False,
            **_attention(model, pack, plans=plans),
        ).last_hidden_state
    return states.flatten(0, 1)


def takes_plans(model: PreTrainedModel) -> bool:
    """Whether the model was loaded with the attention that `align.attention` registers."""
    return model.config._attn_implementation == shared_prefix.NAME


def precision(
    device: torch.device | str, autocast: torch.dtype | None
) -> AbstractContextManager[object]:
    """Autocast to that type, or nothing for None."""
    if autocast is None:
        return nullcontext()
    return torch.autocast(torch.device(device).type, autocast)


def _attention(model: PreTrainedModel, pack: Pack, *, plans: bool) -> dict[str, Any]:
    """What tells the model's attention who may see whom."""
    if pack.padded:
        return {"attention_mask": pack.attention_mask()}
    if model.config._attn_implementation == "flex_attention":
        return {"attention_mask": _block_mask(pack)}
    device = pack.input_ids.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else model.dtype
    cut = shared_prefix.plan(pack, dtype) if plans else None
    if cut is None:
        return {"attention_mask": _dense_mask(pack, dtype)}
    # Nobody reads the mask beside a plan; without one `transformers` would make its own, [T, T].
    return {"attention_mask": torch.zeros(1, 1, 1, 1), "pack_plan": cut}


def _dense_mask(pack: Pack, dtype: torch.dtype) -> Tensor:
    """Tensor[R, 1, T, T] to add to the scores."""
    allowed = pack.attention_mask()
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )


def _block_mask(pack: Pack) -> Any:
    """The rule of `Pack.attention_mask` for FlexAttention, which skips blocks that are empty."""
    from torch.nn.attention.flex_attention import create_block_mask

    segment, prompt = pack.segment, pack.prompt
    rows, width = segment.shape

    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        mine = segment[row, query] == segment[row, key]
        return ((prompt[row, query] == segment[row, key]) | mine) & (query >= key)

    return create_block_mask(allowed, rows, None, width, width, device=segment.device)
