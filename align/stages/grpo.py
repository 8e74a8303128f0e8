"""GRPO (arXiv 2402.03300): sample groups, score them, step along their advantage.

Departs from the paper, each by a setting: the mean runs over all tokens of the rollout
(`reduction`, DAPO 2503.14476), the ratio's bounds are not symmetric, there is no KL term by
default, and each token is weighted by trainer / sampler because the sampler computes in another
precision (`importance`). Completions that cannot move the weights (advantage 0, no KL, no entropy
term) count in the mean and are not computed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from align.config import Grpo
from align.loop import Batch
from align.lora import adapters_off, merged_weights
from align.models import load_causal_lm
from align.objectives.entropy import entropy_bonus
from align.objectives.importance import importance_weights
from align.objectives.kl import k3
from align.objectives.policy import grpo
from align.objectives.reduce import token_weights, tokens_per_step
from align.packing import Completion, Group, Pack, pack
from align.policy import Policy
from align.rollout import Engine
from align.stages.context import Context
from align.stages.figures import Clock, rollout_figures, sample_rows
from align.stages.rolled import Prompts, Rolled, Roller, set_advantages


class GrpoStage:
    """collect: a rollout, cut into minibatches of packs. loss: the clipped policy gradient."""

    def __init__(self, config: Grpo, context: Context, rows: Any, engine: Engine) -> None:
        self.config = config
        self.context = context
        self.prompts = Prompts(rows, config, context)
        self.engine = engine
        self.roller = Roller(config, context, engine, self.prompts)
        self.steps = config.steps or math.ceil(len(self.prompts.kept) / config.prompts)
        self.optimizer_steps = config.minibatches * config.iterations
        self.cursor = 0  # prompts drawn so far, over all ranks
        self.reference = _reference(config, context)

    def arithmetic(self) -> dict[str, str]:
        config, kept = self.config, len(self.prompts.kept)
        prompts = self.steps * config.prompts
        completions = prompts * config.samples
        tokens = sum(len(ids) for _, ids in self.prompts.kept) / kept * prompts
        return {
            "prompts": f"{prompts:,} ({prompts / kept:.2f} passes over {kept:,})",
            "completions": f"{completions:,} ({config.prompts} prompts x {config.samples} a step)",
            "optimizer steps": f"{self.steps * self.optimizer_steps:,}"
            f" ({config.minibatches} minibatches x {config.iterations} iterations a step)",
            "tokens": f"{tokens:,.0f} of prompts, "
            f"at most {completions * config.sampling.max_tokens:,} of completions",
        }

    def collect(self, step: int) -> Batch:
        clock = Clock()
        with clock("sync"):
            self.engine.sync(merged_weights(self.context.model))
        groups, replaced = self._roll(step, clock)
        set_advantages(groups, self.config, self.context)
        figures = rollout_figures([*groups, *replaced], self.context)
        begun = time.perf_counter()
        minibatches = self._minibatches(step, groups, figures)
        clock.seconds["pack"] = time.perf_counter() - begun
        return Batch(
            minibatches=minibatches,
            columns=self._columns(step),
            passes=self.config.iterations,
            metrics=figures | clock.figures(),
            samples=sample_rows([*groups, *replaced], self.prompts.rows, limit=self._logged()),
        )

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        config, columns = self.config, pack.columns
        policy, entropy = self.context.policy(pack)
        lengths = pack.lengths()
        # With one optimizer step a rollout the old policy is the current one.
        old = columns.get("old", policy.detach())
        level = "sequence" if config.objective == "gspo" else "token"
        correction = self._correction(old, pack, lengths)
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

    def state(self) -> dict[str, Any]:
        return {"cursor": self.cursor}

    def load_state(self, state: dict[str, Any]) -> None:
        self.cursor = state["cursor"]

    def close(self) -> None:
        self.engine.close()

    def _logged(self) -> int:
        """Samples that this rank writes a step; 0 for all."""
        every = self.context.accelerator.num_processes
        return math.ceil(self.config.samples_logged / every)

    def _roll(self, step: int, clock: Clock) -> tuple[list[Rolled], list[Rolled]]:
        """This rank's groups, and the dead ones that they replaced, as far as `refill` goes."""
        alive: list[Rolled] = []
        replaced: list[Rolled] = []
        wanted = self.config.prompts
        for round_ in range(self.config.refill + 1):
            places = self.context.share(list(range(self.cursor, self.cursor + wanted)))
            self.cursor += wanted
            with clock("sample"):
                groups = self.roller.sample(step, places)
            with clock("score"):
                self.roller.score(step, groups)
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

    def _minibatches(
        self, step: int, groups: Sequence[Rolled], figures: dict[str, float]
    ) -> list[list[Pack]]:
        """Packs of each optimizer step, every token with its weight in the mean."""
        count = self.config.minibatches
        cuts = [
            groups[i * len(groups) // count : (i + 1) * len(groups) // count] for i in range(count)
        ]
        sequences = [self.context.total(sum(len(g.samples) for g in cut))[0] for cut in cuts]
        tokens = [self.context.total(sum(self._tokens(g) for g in cut))[0] for cut in cuts]
        share = tokens_per_step(rollout_tokens=round(sum(tokens)), optimizer_steps=count)
        minibatches = []
        for i, cut in enumerate(cuts):
            over = share if self.config.reduction == "dapo" else tokens[i]
            packed = self._pack(cut, sequences=round(sequences[i]), tokens=max(over, 1.0))
            minibatches.append(packed)
        self._fill_columns(step, minibatches)
        computed = sum(pack.tokens for packs in minibatches for pack in packs)
        figures["computed_tokens"] = self.context.total(computed)[0]
        return minibatches

    def _pack(self, cut: Sequence[Rolled], *, sequences: int, tokens: float) -> list[Pack]:
        """Lay out the completions that can move the weights."""
        config = self.config
        every = bool(config.beta or config.entropy)
        groups = []
        for group in cut:
            lengths = torch.tensor([len(sample.ids) for sample in group.samples])
            weights = token_weights(
                lengths,
                config.reduction,
                sequences=sequences,
                tokens=tokens,
                max_tokens=config.sampling.max_tokens,
            ).tolist()
            completions = [
                Completion(
                    ids=sample.ids,
                    columns={"weight": weight, "advantage": advantage, "sampler": sample.logprobs},
                )
                for sample, weight, advantage in zip(
                    group.samples, weights, group.advantages, strict=True
                )
                if (every or advantage != 0.0) and not self._masked(sample)
            ]
            if completions:
                groups.append(Group(prompt=group.prompt, completions=completions))
        return pack(groups, token_budget=config.compute.token_budget, padded=self.context.padded)

    def _masked(self, sample: Any) -> bool:
        return self.config.mask_truncated and sample.truncated

    def _tokens(self, group: Rolled) -> int:
        return sum(len(sample.ids) for sample in group.samples if not self._masked(sample))

    @torch.no_grad()
    def _fill_columns(self, step: int, minibatches: list[list[Pack]]) -> None:
        """Log-probs under the weights before the first update, and under the reference."""
        policy = self.context.unwrapped
        columns = self._columns(step)
        policy.eval()
        for packs in minibatches:
            for i, cpu_pack in enumerate(packs):
                one = packs[i] = cpu_pack.to(self.context.accelerator.device)
                if "old" in columns:
                    one.columns["old"] = policy(one)[0]
                if "reference" in columns:
                    with nullcontext() if self.reference else adapters_off(policy.model):
                        one.columns["reference"] = (self.reference or policy)(one)[0]

    def _columns(self, step: int) -> tuple[str, ...]:
        """What each token of this step's packs carries."""
        measured = self.config.kl_every and (step - 1) % self.config.kl_every == 0
        return (
            "weight",
            "advantage",
            "sampler",
            *(("old",) if self.optimizer_steps > 1 else ()),
            *(("reference",) if self.config.beta or measured else ()),
        )

    def _correction(self, old: Tensor, pack: Pack, lengths: Tensor) -> Tensor | None:
        if self.config.importance == "off":
            return None
        return importance_weights(
            trainer=old,
            sampler=pack.columns["sampler"],
            sequence=pack.sequence,
            lengths=lengths,
            level=self.config.importance,
            high=self.config.importance_cap,
        )


def _reference(config: Grpo, context: Context) -> Policy | None:
    """The stage's input, frozen; None if it is not asked for, or is the policy without adapters."""
    if not (config.beta or config.kl_every) or config.lora.rank:
        return None
    model = load_causal_lm(
        context.model_path,
        device=context.accelerator.device,
        trust_remote_code=config.trust_remote_code,
    )
    policy = context.unwrapped
    reference = Policy(model, temperature=policy.temperature, autocast=policy.autocast)
    reference.plans = policy.plans  # what the trial at the start found out
    return reference.requires_grad_(False).eval()
