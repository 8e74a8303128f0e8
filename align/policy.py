"""The policy: a module whose forward takes a pack and returns one log-probability and one entropy a
trained token.

It calls the backbone and the head apart, so that logits exist only where a log-probability is
wanted, and a token that several completions continue is computed once.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from align import attention as shared_prefix
from align.logprobs import logit_transform, logprobs
from align.packing import Pack


class Policy(nn.Module):
    """A causal language model that scores packs."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        temperature: float = 1.0,
        autocast: torch.dtype | None = None,
        entropy_gradient: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.entropy_gradient = entropy_gradient
        self.plans = model.config._attn_implementation == shared_prefix.NAME
        self.temperature = temperature
        self.autocast = autocast
        self.scale, self.softcap = logit_transform(model.config)

    def forward(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """Log-probability of each trained token and the entropy there: two float32 Tensors [C]."""
        with precision(pack.input_ids.device, self.autocast):
            hidden = self.model.base_model(
                input_ids=pack.input_ids,
                position_ids=pack.position_ids,
                use_cache=False,
                **self._attention(pack),
            ).last_hidden_state
            return logprobs(
                # Not hidden[...]: the gradient of that adds atomically, in no fixed order.
                hidden.flatten(0, 1).index_select(0, pack.predictor),
                self.model.get_output_embeddings(),
                pack.target,
                temperature=self.temperature,
                scale=self.scale,
                softcap=self.softcap,
                entropy_gradient=self.entropy_gradient,
            )

    def _attention(self, pack: Pack) -> dict[str, Any]:
        """What tells the model's attention who may see whom."""
        if pack.padded:
            return {"attention_mask": pack.attention_mask()}
        if self.model.config._attn_implementation == "flex_attention":
            return {"attention_mask": _block_mask(pack)}
        device = pack.input_ids.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.model.dtype
        mask = {"attention_mask": _dense_mask(pack, dtype)}
        cut = shared_prefix.plan(pack, dtype) if self.plans else None
        return mask if cut is None else mask | {"pack_plan": cut}


def precision(
    device: torch.device | str, autocast: torch.dtype | None
) -> AbstractContextManager[object]:
    """Autocast to that type, or nothing for None."""
    if autocast is None:
        return nullcontext()
    return torch.autocast(torch.device(device).type, autocast)


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
