"""GRPO (arXiv 2402.03300): sample groups, score them, step along their advantage.

Departs from the paper, each by a setting: the mean runs over all tokens of the rollout
(`reduction`, DAPO 2503.14476), the ratio's bounds are not symmetric, there is no KL term by
default, and each token is weighted by trainer / sampler because the sampler computes in another
precision (`importance`). Completions that cannot move the weights (advantage 0, no KL, no entropy
term) count in the mean and are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from align.objectives.entropy import entropy_bonus
from align.objectives.kl import k3
from align.objectives.policy import grpo
from align.packing import Pack
from align.stages.figures import Clock
from align.stages.rolled import Rolled, set_advantages
from align.stages.rollout import RolloutStage


class GrpoStage(RolloutStage):
    """collect: a rollout, cut into minibatches of packs. loss: the clipped policy gradient."""

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        config, columns = self.config, pack.columns
        policy, entropy = self.context.module(pack)
        lengths = pack.lengths()
        # With one optimizer step a rollout the old policy is the current one.
        old = columns.get("old", policy.detach())
        level = "sequence" if config.objective == "gspo" else "token"
        correction = self.correction(old, pack, lengths)
        out = grpo(
            policy=policy,
            old=old,
            advantage=columns["advantage"],
            sequence=pack.sequence,
            lengths=lengths,
            level=level,
            epsilon_low=config.eps_low,
            epsilon_high=config.eps_high,
            ratio_max=config.ratio_max if config.objective == "cispo" else None,
            correction=correction,
            reference=columns["reference"] if config.beta else None,
            beta=config.beta,
        )
        loss = out.loss
        if config.entropy:
            loss = loss + entropy_bonus(entropy, coefficient=config.entropy)
        metrics = {
            "entropy": entropy.sum(),
            "clip_fraction": out.clipped.float().sum(),
            "mismatch/logprob": (old - columns["sampler"]).abs().sum(),
            "mismatch/kl": k3(policy=columns["sampler"], reference=old).sum(),
        }
        if correction is not None:
            metrics["mismatch/capped"] = (correction >= config.importance_cap).float().sum()
        if "reference" in columns:
            metrics["kl"] = k3(policy=policy.detach(), reference=columns["reference"]).sum()
        return (loss * columns["weight"]).sum(), metrics

    def compare(self, groups: Sequence[Rolled]) -> None:
        set_advantages(groups, self.config, self.context)

    def sample_columns(self, group: Rolled, sample: int) -> dict[str, float | Sequence[float]]:
        return super().sample_columns(group, sample) | {"advantage": group.advantages[sample]}

    def counts(self, group: Rolled, sample: int) -> bool:
        return not (self.config.mask_truncated and group.samples[sample].truncated)

    def moves(self, group: Rolled, sample: int) -> bool:
        return bool(self.config.beta or self.config.entropy) or group.advantages[sample] != 0.0

    def wants_reference(self) -> bool:
        return bool(self.config.beta or self.config.kl_every)

    def roll(self, step: int, clock: Clock) -> tuple[list[Rolled], list[Rolled]]:
        """This rank's groups, and the dead ones that they replaced, as far as `refill` goes."""
        alive: list[Rolled] = []
        replaced: list[Rolled] = []
        wanted = self.config.prompts
        for round_ in range(self.config.refill + 1):
            groups = self.draw(step, wanted, clock)
            last = round_ == self.config.refill
            alive += [group for group in groups if last or not group.dead]
            if last:
                break
            dead = [group for group in groups if group.dead]
            replaced += dead
            wanted = round(self.context.total(len(dead))[0])
            if not wanted:
                break
        return alive, replaced

    @torch.no_grad()
    def fill(
        self,
        step: int,
        minibatches: list[list[Pack]],
        groups: Sequence[Rolled],
        figures: dict[str, float],
    ) -> None:
        """Log-probs under the weights before the first update, and under the reference."""
        policy = self.context.policy
        columns = self.columns(step)
        policy.eval()
        for one in chain.from_iterable(minibatches):
            if "old" in columns:
                one.columns["old"] = policy(one, entropy=False)[0]
            if "reference" in columns:
                with self.as_reference() as reference:
                    one.columns["reference"] = reference(one, entropy=False)[0]

    def columns(self, step: int) -> tuple[str, ...]:
        measured = self.config.kl_every and (step - 1) % self.config.kl_every == 0
        return (
            "weight",
            "advantage",
            "sampler",
            *(("old",) if self.optimizer_steps > 1 else ()),
            *(("reference",) if self.config.beta or measured else ()),
        )
