"""The policy: a module whose forward takes a pack and returns one log-probability and one entropy a
trained token.

It calls the backbone and the head apart, so that logits exist only where a log-probability is
wanted, and a token that several completions continue is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from align.modeling.backbone import hidden_states, precision, takes_plans
from align.modeling.logprobs import logit_transform, logprobs, whole_logits
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
        self.plans = takes_plans(model)
        self.temperature = temperature
        self.autocast = autocast
        self.transform = logit_transform(model.config, temperature)

    def forward(self, pack: Pack, *, entropy: bool = True) -> tuple[Tensor, Tensor]:
        """Log-probability of each trained token and the entropy there: two float32 Tensors [C].

        Without `entropy`, which costs a pass over all logits, the second is empty.
        """
        return self.read(self.predictors(pack), pack, entropy=entropy)

    def predictors(self, pack: Pack) -> Tensor:
        """The hidden state that predicts each trained token, [C, H]."""
        hidden = hidden_states(self.model, pack, plans=self.plans, autocast=self.autocast)
        # Not hidden[...]: the gradient of that adds atomically, in no fixed order.
        return hidden.index_select(0, pack.predictor)

    def read(
        self, predictors: Tensor, pack: Pack, *, entropy: bool = True
    ) -> tuple[Tensor, Tensor]:
        """What the head makes of these states, as `forward` returns it."""
        with precision(pack.input_ids.device, self.autocast):
            return logprobs(
                predictors,
                self.model.get_output_embeddings(),
                pack.target,
                self.transform,
                entropy=entropy,
                entropy_gradient=self.entropy_gradient,
            )

    def logits(self, predictors: Tensor) -> Tensor:
        """All logits of these states at the policy's temperature, float32 [C, V]."""
        with precision(predictors.device, self.autocast):
            return whole_logits(predictors, self.model.get_output_embeddings(), self.transform)
