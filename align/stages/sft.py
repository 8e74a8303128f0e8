"""Supervised fine-tuning: cross-entropy on what the assistant wrote, its end token included.

The loss is the mean over the trained tokens of the optimizer step, however they are packed.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

import data
from align.config import Sft
from align.loop import Batch
from align.packing import Completion, Group, Pack, pack
from align.progress import console
from align.stages.context import Context
from align.stages.order import at
from data.chat import Rendered


class SftStage:
    """collect: the next rows. loss: their negative log-likelihood."""

    optimizer_steps = 1

    def __init__(self, config: Sft, context: Context, rows: Any) -> None:
        self.config = config
        self.context = context
        self.rows = _rendered(rows, config, context)
        self.total = round(config.epochs * len(self.rows))
        self.steps = math.ceil(self.total / config.batch)

    def arithmetic(self) -> dict[str, str]:
        tokens = sum(len(row.ids) for row in self.rows) * self.config.epochs
        trained = sum(sum(row.mask) for row in self.rows) * self.config.epochs
        return {
            "rows": f"{len(self.rows):,}, {self.config.epochs:g} epochs",
            "optimizer steps": f"{self.steps:,} of {self.config.batch} sequences",
            "tokens": f"{tokens:,.0f}, {trained:,.0f} of them trained",
        }

    def collect(self, step: int) -> Batch:
        first = (step - 1) * self.config.batch
        places = range(first, min(first + self.config.batch, self.total))
        indices = [at(place, len(self.rows), self.config.seed) for place in places]
        rows = self.context.share([self.rows[index] for index in indices])
        (trained,) = self.context.total(sum(sum(row.mask) for row in rows))
        groups = [_group(row, 1 / trained) for row in rows]
        packs = pack(
            groups,
            token_budget=self.config.compute.token_budget,
            padded=self.context.padded,
        )
        return Batch(minibatches=[packs], columns=("weight",))

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs, entropy = self.context.policy(pack)
        return -(logprobs * pack.columns["weight"]).sum(), {"entropy": entropy.sum()}

    def state(self) -> dict[str, Any]:
        return {}  # which rows come next follows from the step

    def load_state(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def _rendered(rows: Any, config: Sft, context: Context) -> list[Rendered]:
    """Every row as ids and mask; those over the limit are dropped and counted."""
    rendered = [data.chat.render(context.tokenizer, row) for row in rows]
    kept = [row for row in rendered if len(row.ids) <= config.max_tokens]
    if len(kept) < len(rendered) and context.accelerator.is_main_process:
        console.print(
            f"dropped {len(rendered) - len(kept):,} of {len(rendered):,} rows longer than "
            f"max_tokens={config.max_tokens}"
        )
    if not kept:
        raise data.DataError(f"every row is longer than max_tokens={config.max_tokens}; raise it")
    return kept


def _group(row: Rendered, weight: float) -> Group:
    """Split a row before its first trained token; what comes after is one masked completion."""
    start = row.mask.index(1)
    completion = Completion(ids=row.ids[start:], mask=row.mask[start:], columns={"weight": weight})
    return Group(prompt=row.ids[:start], completions=[completion])
