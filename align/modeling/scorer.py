"""Heads that give one number: the reward model's a sequence, the critic's a token.

A reward model is a `transformers` sequence classifier with one label, which reads its score at the
last token that is not the pad token. Where pad and end token are one, that is the token before the
end: `trimmed` cuts what comes after, so that a pack's last cell is the one that transformers reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from align.modeling.backbone import hidden_states, takes_plans
from align.modeling.lora import using
from align.packing import Pack


class Scorer(nn.Module):
    """A sequence classifier with one label that scores packs."""

    def __init__(self, model: PreTrainedModel, *, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self.plans = takes_plans(model)
        self.autocast = autocast

    def forward(self, pack: Pack) -> Tensor:
        """The score of each completion, float32 Tensor[sequences]."""
        return self.read(self.hidden(pack).index_select(0, pack.last))

    def values(self, pack: Pack) -> Tensor:
        """The number at each state that predicts a trained token: a critic's values, [C]."""
        return self.read(self.hidden(pack).index_select(0, pack.predictor))

    def hidden(self, pack: Pack) -> Tensor:
        return hidden_states(self.model, pack, plans=self.plans, autocast=self.autocast)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def read(self, states: Tensor) -> Tensor:
        """The head's number for each state, [...] of states [..., H], in float32."""
        head = self.model.score
        return read_off(states, head.weight, head.bias)


class AdapterScorer:
    """A reward model that is adapters and a head on somebody else's base.

    names: the adapters, all of them on the base of `host`, whose own are off meanwhile.
    """

    def __init__(self, host: Any, names: Sequence[str], head: Tensor) -> None:
        self.host = host
        self.names = tuple(names)
        self.head = head.to(host.model.device)

    @property
    def device(self) -> torch.device:
        return self.host.model.device

    def __call__(self, pack: Pack) -> Tensor:
        """The score of each completion, float32 Tensor[sequences]."""
        host = self.host
        host.eval()  # dropout is for training
        with using(host.model, *self.names):
            hidden = hidden_states(host.model, pack, plans=host.plans, autocast=host.autocast)
        return read_off(hidden.index_select(0, pack.last), self.head)


def read_off(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A head's number for each state, float32 [...] of states [..., H] and weight [1, H]."""
    bias = None if bias is None else bias.float()
    return nn.functional.linear(states.float(), weight.float(), bias)[..., 0]


def value_head(model: PreTrainedModel) -> nn.Linear:
    """A head of zeros for a critic on this model's trunk: it expects nothing yet."""
    head = nn.Linear(model.config.get_text_config().hidden_size, 1, bias=False)
    nn.init.zeros_(head.weight)
    return head.to(model.device)


def trimmed(ids: Sequence[int], pad: int | None) -> list[int]:
    """Without the pad tokens at the end, after which transformers' classifiers do not read."""
    kept = len(ids)
    while kept and ids[kept - 1] == pad:
        kept -= 1
    return list(ids[:kept])
