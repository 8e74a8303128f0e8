"""Policy and critic as one module, so that one loop, optimizer and checkpoint serve both."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from transformers import PreTrainedModel

from align.modeling.lora import using
from align.modeling.policy import Policy
from align.modeling.scorer import Scorer, read_off, value_head
from align.packing import Pack

CRITIC = "critic"  # the adapter's name


class ActorCritic(nn.Module):
    """forward: log-probs, entropies, values of a pack's trained tokens.

    The critic is a model of its own (`scorer`), or a head on the policy's trunk; with `adapter` it
    reads the trunk through the adapter called "critic", not through the policy's.
    """

    def __init__(
        self, policy: Policy, *, scorer: Scorer | None = None, adapter: bool = False
    ) -> None:
        super().__init__()
        self.policy = policy
        self.scorer = scorer
        self.head = None if scorer else value_head(policy.model)
        self.adapter = adapter

    @property
    def model(self) -> PreTrainedModel:
        """What is exported: the policy's."""
        return self.policy.model

    def forward(self, pack: Pack) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability, entropy and value at each trained token, three float32 Tensors [C].

        The value is that of the state before the token: of the prompt and the tokens before it.
        """
        states = self.policy.predictors(pack)
        logprobs, entropy = self.policy.read(states, pack)
        return logprobs, entropy, self._values(states, pack)

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """What the critic has for itself."""
        if self.scorer is not None:
            yield from self.scorer.parameters()
            return
        assert self.head is not None
        yield from self.head.parameters()
        for name, parameter in self.policy.model.named_parameters():
            if f".{CRITIC}." in name:
                yield parameter

    def _values(self, states: Tensor, pack: Pack) -> Tensor:
        if self.scorer is not None:
            return self.scorer.values(pack)
        if self.adapter:
            with using(self.policy.model, CRITIC):
                states = self.policy.predictors(pack)
        assert self.head is not None
        return read_off(states, self.head.weight)
