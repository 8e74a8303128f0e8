"""PPO-RLHF (arXiv 1707.06347, 2203.02155): policy, frozen reference, reward, critic.

A completion's score stands on its last token; every token pays beta times its k1 to the reference
(`kl="reward"`), or the loss has a k3 term (`kl="loss"`). Advantages are generalised advantage
estimates over the completion's tokens. A completion that was cut off has ended like any other: it
is scored as it stands, less `truncated_penalty`, and nothing is expected to follow.

Departs from the papers: an adaptive beta follows the rule of PPO's own penalty (halve, double), not
a proportional controller; the gradients of policy and critic are clipped apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from align.objectives.entropy import entropy_bonus
from align.objectives.policy import (
    adapt_beta,
    clipped_surrogate,
    is_clipped,
    kl_penalty,
    ppo_penalty,
    token_log_ratio,
)
from align.objectives.reduce import sequence_sum
from align.objectives.value import value_loss
from align.packing import Pack
from align.stages.advantages import critic_figures, set_advantages, whiten
from align.stages.rolled import RewardError, Rolled
from align.stages.rollout import RolloutStage
from align.training.batch import Batch

COLUMNS = (
    "weight",
    "sampler",
    "score",
    "number",
    "old",
    "value",
    "reference",
    "advantage",
    "return",
)


class PpoStage(RolloutStage):
    """collect: a rollout with advantages and returns. loss: surrogate, value loss, entropy, KL."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.beta = self.config.beta  # of the KL to the reference
        self.penalty = self.config.penalty  # of the KL to the old policy
        self.warming = False

    def collect(self, step: int) -> Batch:
        self.warming = step <= self.config.critic_warmup
        batch = super().collect(step)
        # Not the policy's loss alone: a critic's reaches a trunk that they share.
        batch.held = ("grad_norm",) if self.warming else ()
        return batch

    def columns(self, step: int) -> tuple[str, ...]:
        return COLUMNS

    def compare(self, groups: Sequence[Rolled]) -> None:
        """Every completion needs a score: there is no group to stand in for it."""
        for group in groups:
            if None in (score.value for score in group.scores):
                raise RewardError(
                    "the reward gave None (does not apply) for a completion; PPO needs a number "
                    "for every one"
                )

    def sample_columns(self, group: Rolled, sample: int) -> dict[str, float | Sequence[float]]:
        score = group.values[sample]
        if group.samples[sample].truncated:
            score -= self.config.truncated_penalty
        # The place in the rank's rollout: packs are filled by size.
        columns = {"score": score, "number": float(group.first + sample)}
        return super().sample_columns(group, sample) | columns

    def roll(self, step: int, clock: Any) -> tuple[list[Rolled], list[Rolled]]:
        groups, replaced = super().roll(step, clock)
        for i, group in enumerate(groups):
            group.first = i * self.config.samples
        return groups, replaced

    @torch.no_grad()
    def fill(
        self,
        step: int,
        minibatches: list[list[Pack]],
        groups: Sequence[Rolled],
        figures: dict[str, float],
    ) -> None:
        """Old log-probs and values, the reference's log-probs; from them advantages and returns."""
        config, module = self.config, self.context.unwrapped
        beta = self.beta if config.kl == "reward" else 0.0
        module.eval()
        packs = [one for minibatch in minibatches for one in minibatch]
        for one in packs:
            one.columns["old"], _, one.columns["value"] = module(one)
            with self.as_reference() as reference:
                one.columns["reference"] = reference(one, entropy=False)[0]
            set_advantages(one, beta=beta, gamma=config.gamma, lam=config.lam)
        figures |= critic_figures(packs, self.context) | {"beta": self.beta}
        if config.whiten:
            whiten(packs, self.context)
        for one in packs:
            self._tell(one, groups)

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        config, columns = self.config, pack.columns
        policy, entropy, values = self.context.module(pack)
        old, advantage = columns["old"], columns["advantage"]
        correction = self.correction(old, pack, pack.lengths())
        if correction is not None:
            advantage = advantage * correction
        value = value_loss(
            values,
            returns=columns["return"],
            old_values=columns["value"] if config.value_clip else None,
            clip=config.value_clip or None,
        )
        log_ratio = token_log_ratio(policy=policy, old=old)
        # KL(old || policy) as the paper has it: the samples are the old one's, r = policy / old.
        moved = log_ratio.exp() - 1 - log_ratio
        if config.objective == "penalty":
            surrogate = ppo_penalty(log_ratio, advantage=advantage, kl=moved, beta=self.penalty)
        else:
            bounds = {"epsilon_low": config.eps_low, "epsilon_high": config.eps_high}
            surrogate = clipped_surrogate(log_ratio, advantage=advantage, **bounds)
        if config.kl == "loss" and self.beta:
            surrogate = surrogate + kl_penalty(
                policy=policy, reference=columns["reference"], beta=self.beta
            )
        if config.entropy:
            surrogate = surrogate + entropy_bonus(entropy, coefficient=config.entropy)
        # While the critic warms up the policy takes part with weight 0: every rank needs a gradient
        # for every parameter.
        loss = surrogate * (0.0 if self.warming else 1.0) + config.value_weight * value
        metrics = {
            "entropy": entropy.sum(),
            "value_loss": value.sum(),
            "kl/old": moved.sum(),
            "mismatch/logprob": (old - columns["sampler"]).abs().sum(),
            "value_clip_fraction": ((values - columns["value"]).abs() > config.value_clip)
            .float()
            .sum()
            if config.value_clip
            else torch.zeros((), device=policy.device),
        }
        if config.objective == "clip":
            clipped = is_clipped(
                log_ratio,
                advantage=advantage,
                epsilon_low=config.eps_low,
                epsilon_high=config.eps_high,
            )
            metrics["clip_fraction"] = clipped.float().sum()
        return (loss * columns["weight"]).sum(), metrics

    def learned(self, metrics: dict[str, float]) -> None:
        """Steer beta by how far this rollout was from the reference, the penalty by how far its
        updates moved the policy, on average. While the critic warms up neither can follow.
        """
        config = self.config
        metrics["warmup"] = float(self.warming)
        if config.objective == "penalty":
            metrics["penalty"] = self.penalty
        if self.warming:
            return
        if config.kl_target:
            self.beta = adapt_beta(self.beta, kl=metrics["kl/sequence"], target=config.kl_target)
        if config.objective == "penalty" and config.penalty_target:
            self.penalty = adapt_beta(
                self.penalty, kl=metrics["kl/old"], target=config.penalty_target
            )

    def state(self) -> dict[str, Any]:
        return super().state() | {"beta": self.beta, "penalty": self.penalty}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.beta, self.penalty = state["beta"], state["penalty"]

    def wants_reference(self) -> bool:
        return True  # how far the policy has gone is always measured

    def token_budget(self) -> int:
        """A pack goes through two backbones unless they are one, so it is half as long."""
        budget = self.config.compute.token_budget
        return budget if self.config.critic == "shared" else max(1, budget // 2)

    def _tell(self, pack: Pack, groups: Sequence[Rolled]) -> None:
        """Write each completion's mean advantage where the samples' log finds it."""
        lengths = pack.lengths()
        sums = sequence_sum(pack.columns["advantage"], sequence=pack.sequence, lengths=lengths)
        numbers = pack.per_sequence("number").long().tolist()
        for number, mean in zip(numbers, (sums / lengths).tolist(), strict=True):
            group = groups[number // self.config.samples]
            group.advantages[number % self.config.samples] = mean
