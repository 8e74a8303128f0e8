"""A backbone's hidden states of a pack, which every head reads: the policy's, the reward model's,
the critic's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align.modeling import attention as shared_prefix
from align.modeling import flex
from align.modeling.precision import computed_in
from align.packing import Pack

FLEX = (flex.NAME, "flex_attention")


def hidden_states(
    model: PreTrainedModel, pack: Pack, *, plans: bool, autocast: torch.dtype | None
) -> Tensor:
    """The last layer's states of all cells, [R * T, H].

    plans: the pack's attention is cut up by group (`align.modeling.attention`).
    """
    width = pack.input_ids.shape[1]
    with precision(pack.input_ids.device, autocast):
        states = model.base_model(
            use_cache=False, **_cells(model, pack, plans=plans)
        ).last_hidden_state
    return states[:, :width].flatten(0, 1)


def takes_plans(model: PreTrainedModel) -> bool:
    """Whether the model was loaded with the attention that `align.modeling.attention` registers."""
    return model.config._attn_implementation == shared_prefix.NAME


def precision(
    device: torch.device | str, autocast: torch.dtype | None
) -> AbstractContextManager[object]:
    """Autocast to that type, or nothing for None."""
    if autocast is None:
        return nullcontext()
    return torch.autocast(torch.device(device).type, autocast)


def _cells(model: PreTrainedModel, pack: Pack, *, plans: bool) -> dict[str, Any]:
    """The pack's tokens, and what tells the model's attention who may see whom."""
    cells = {"input_ids": pack.input_ids, "position_ids": pack.position_ids}
    if pack.padded:
        return cells | {"attention_mask": pack.attention_mask()}
    if model.config._attn_implementation in FLEX:
        ids, positions, segment, prompt = flex.filled(pack)
        mask = flex.block_mask(segment, prompt)
        return {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    dtype = computed_in(pack.input_ids.device, model.dtype)
    cut = shared_prefix.plan(pack, dtype) if plans else None
    if cut is None:
        return cells | {"attention_mask": shared_prefix.dense_mask(pack, dtype)}
    # Nobody reads the mask beside a plan; without one `transformers` would make its own, [T, T].
    return cells | {"attention_mask": torch.zeros(1, 1, 1, 1), "pack_plan": cut}
