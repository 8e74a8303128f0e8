"""Supervised fine-tuning: cross-entropy on what the assistant wrote, its end token included.

The loss is the mean over the trained tokens of the optimizer step, however they are packed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

import data
from align.config import Sft
from align.packing import Group, Pack
from align.stages.base import PassStage
from align.stages.context import Context
from align.stages.rendered import split, within
from align.training.batch import Batch


class SftStage(PassStage):
    """collect: the next rows. loss: their negative log-likelihood."""

    def __init__(self, config: Sft, context: Context, rows: Any) -> None:
        rendered = [data.chat.render(context.tokenizer, row) for row in rows]
        super().__init__(config, context, within(rendered, config, lambda r: len(r.ids)))

    def arithmetic(self) -> dict[str, str]:
        tokens = sum(len(row.ids) for row in self.rows) * self.config.epochs
        trained = sum(sum(row.mask) for row in self.rows) * self.config.epochs
        return {
            "rows": f"{len(self.rows):,}, {self.config.epochs:g} epochs",
            "optimizer steps": f"{self.steps:,} of {self.config.batch} sequences",
            "tokens": f"{tokens:,.0f}, {trained:,.0f} of them trained",
        }

    def collect(self, step: int) -> Batch:
        rows = self.context.share([self.rows[self.row(place)] for place in self.places(step)])
        (trained,) = self.context.total(sum(sum(row.mask) for row in rows))
        groups = []
        for row in rows:
            prompt, completion = split(row)
            weighed = replace(completion, columns={"weight": 1 / trained})
            groups.append(Group(prompt=prompt, completions=[weighed]))
        return Batch(minibatches=[self.packed(groups)], columns=("weight",))

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs, entropy = self.context.module(pack)
        return -(logprobs * pack.columns["weight"]).sum(), {"entropy": entropy.sum()}
