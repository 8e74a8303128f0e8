"""Direct preference optimisation (arXiv 2305.18290), IPO (2310.12036) and the hinge (2305.10425).

A pair is laid out as prompt, chosen, rejected: the prompt is computed once. The reference is the
stage's input; its log-probs are computed once, before the first step. The loss is the mean over the
pairs of the optimizer step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from align.config import Dpo
from align.objectives.preference import pair_loss
from align.objectives.reduce import sequence_sum
from align.packing import Group, Pack
from align.stages.base import PassStage
from align.stages.context import Context
from align.stages.reference import reference_logprobs
from align.stages.rendered import pairs
from align.training.batch import Batch


class PreferenceStage(PassStage):
    """collect: the next pairs. loss: how far the policy is from preferring the chosen one."""

    def __init__(self, config: Dpo, context: Context, rows: Any) -> None:
        groups = [
            Group(prompt=pair.prompt, completions=[pair.chosen, pair.rejected])
            for pair in pairs(rows, config, context)
        ]
        super().__init__(config, context, groups)
        self.reference: dict[int, list[Tensor]] = {}  # of each row that will be seen

    def arithmetic(self) -> dict[str, str]:
        tokens = sum(
            len(group.prompt) + sum(len(one.ids) for one in group.completions)
            for group in self.rows
        )
        return {
            "pairs": f"{len(self.rows):,}, {self.config.epochs:g} epochs",
            "optimizer steps": f"{self.steps:,} of {self.config.batch} pairs",
            "tokens": f"{tokens * self.config.epochs:,.0f}, prompts counted once; the reference "
            "reads each pair once before",
        }

    def prepare(self) -> None:
        seen = sorted({self.row(place) for place in range(self.total)})
        computed = reference_logprobs(
            [self.rows[row] for row in seen],
            self.context,
            token_budget=self.config.compute.token_budget,
        )
        self.reference = dict(zip(seen, computed, strict=True))

    def collect(self, step: int) -> Batch:
        places = self.places(step)
        groups = []
        for row in self.context.share([self.row(place) for place in places]):
            weighed = [
                replace(
                    one, columns={"weight": 1 / len(places), "reference": spread(reference, one)}
                )
                for one, reference in zip(
                    self.rows[row].completions, self.reference[row], strict=True
                )
            ]
            groups.append(Group(prompt=self.rows[row].prompt, completions=weighed))
        packs = self.packed(groups, whole=True)
        return Batch(minibatches=[packs], columns=("weight", "reference"), unit="pairs")

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        config, lengths = self.config, pack.lengths()
        ratio = self.context.module(pack, entropy=False)[0] - pack.columns["reference"]
        chosen, rejected = (
            sequence_sum(ratio, sequence=pack.sequence, lengths=lengths).view(-1, 2).unbind(1)
        )
        loss = pair_loss(
            chosen=chosen,
            rejected=rejected,
            chosen_lengths=lengths[::2],
            rejected_lengths=lengths[1::2],
            loss=config.loss_type,
            beta=config.beta,
            label_smoothing=config.label_smoothing,
        )
        won = config.beta * (chosen - rejected).detach()
        return (loss * pack.per_sequence("weight")[::2]).sum(), {
            "pairs": torch.tensor(float(len(won)), device=won.device),
            "accuracy": (won > 0).float().sum(),
            "margin": won.sum(),
            "chosen": config.beta * chosen.detach().sum(),
            "rejected": config.beta * rejected.detach().sum(),
        }


def spread(values: Tensor, completion: Any) -> list[float]:
    """One value for each trained token, written at that token's place among all."""
    if completion.mask is None:
        return values.tolist()
    left = iter(values.tolist())
    return [next(left) if wanted else 0.0 for wanted in completion.mask]
