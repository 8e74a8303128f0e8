"""Policies and a critic of two small layers.

A policy answers three questions about observations [..., O]: a sampled action, the most likely
action, and the log-probability of given actions with the policy's entropy, each [...].
"""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from align.objectives.entropy import entropy_of_logits

HIDDEN = 64


class DiscretePolicy(nn.Module):
    """One logit an action."""

    def __init__(self, observation_size: int, actions: int) -> None:
        super().__init__()
        self.logits = two_layers(observation_size, actions)

    def sample(self, observations: Tensor) -> Tensor:
        return Categorical(logits=self.logits(observations)).sample()

    def greedy(self, observations: Tensor) -> Tensor:
        return self.logits(observations).argmax(dim=-1)

    def evaluate(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(observations)
        return Categorical(logits=logits).log_prob(actions), entropy_of_logits(logits)


class GaussianPolicy(nn.Module):
    """A mean that depends on the state and a deviation that does not. Actions are not bounded
    here; Pendulum clips the torque itself."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.mean = two_layers(observation_size, action_size)
        self.log_deviation = nn.Parameter(torch.zeros(action_size))

    def sample(self, observations: Tensor) -> Tensor:
        return self._distribution(observations).sample()

    def greedy(self, observations: Tensor) -> Tensor:
        return self.mean(observations)

    def evaluate(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        distribution = self._distribution(observations)
        return distribution.log_prob(actions), distribution.entropy()

    def _distribution(self, observations: Tensor) -> Independent:
        return Independent(Normal(self.mean(observations), self.log_deviation.exp()), 1)


Policy = DiscretePolicy | GaussianPolicy


class Critic(nn.Module):
    """The value of a state, [...]."""

    def __init__(self, observation_size: int) -> None:
        super().__init__()
        self.value = two_layers(observation_size, 1)

    def forward(self, observations: Tensor) -> Tensor:
        return self.value(observations).squeeze(-1)


def two_layers(inputs: int, outputs: int) -> nn.Sequential:
    """The last layer starts at zero: an even policy, a critic that expects nothing."""
    last = nn.Linear(HIDDEN, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), last)
