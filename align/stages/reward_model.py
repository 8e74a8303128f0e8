"""Reward model: Bradley-Terry on pairs (arXiv 2009.01325), one score a sequence.

A pair is laid out as prompt, chosen, rejected: the prompt is computed once. The loss is the mean
over the pairs of the optimizer step. A share of the pairs is kept out of training; what the model
makes of them is written to heldout.json.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import data
from align.config import RewardModel
from align.evaluation.statistics import proportion
from align.files.folder import write_json
from align.objectives.ranking import bradley_terry, centring
from align.packing import Completion, Group, Pack
from align.stages.base import PassStage
from align.stages.calibration import calibration
from align.stages.context import Context
from align.stages.rendered import Pair, pairs
from align.terminal.progress import console
from align.training.batch import Batch


class RewardModelStage(PassStage):
    """collect: the next pairs. loss: how surprising it is that the chosen one won."""

    head = "score"

    def __init__(self, config: RewardModel, context: Context, rows: Any) -> None:
        pad = context.model.config.get_text_config().pad_token_id
        found = pairs(rows, config, context, pad=pad)
        kept, self.heldout = _held_out(found, config)
        shared = len(found) - len(kept) - len(self.heldout)
        if shared:
            console.print(f"dropped {shared:,} pairs with an answer that is also kept out")
        super().__init__(config, context, kept)

    def arithmetic(self) -> dict[str, str]:
        tokens = sum(_tokens(pair) for pair in self.rows) * self.config.epochs
        return {
            "pairs": f"{len(self.rows):,}, {self.config.epochs:g} epochs; "
            f"{len(self.heldout):,} kept out to be judged at the end",
            "optimizer steps": f"{self.steps:,} of {self.config.batch} pairs",
            "tokens": f"{tokens:,.0f}, prompts counted once",
        }

    def collect(self, step: int) -> Batch:
        places = self.places(step)
        rows = self.context.share([self.rows[self.row(place)] for place in places])
        return Batch(
            minibatches=[self._packs(rows, weight=1 / len(places))],
            columns=("weight", "margin"),
            unit="pairs",
        )

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        chosen, rejected = self.context.module(pack).view(-1, 2).unbind(1)
        weight = pack.per_sequence("weight")[::2]
        margin = pack.per_sequence("margin")[::2] if self.config.margin else None
        loss = bradley_terry(chosen=chosen, rejected=rejected, margin=margin)
        if self.config.center:
            loss = loss + centring(chosen=chosen, rejected=rejected, coefficient=self.config.center)
        won = (chosen - rejected).detach()
        return (loss * weight).sum(), {
            "pairs": torch.tensor(float(len(won)), device=won.device),
            "tokens": torch.tensor(float(pack.tokens), device=won.device),
            "accuracy": (won > 0).float().sum(),
            "margin": won.sum(),
            "score": (chosen + rejected).detach().sum() / 2,
        }

    def finish(self) -> None:
        """Judge the pairs that were kept out; heldout.json."""
        if not self.heldout:
            return
        # Sorted, as lots are drawn for one after the other: they come as packs and processes do.
        margins = sorted(self._margins(self.heldout))
        if not self.context.accelerator.is_main_process:
            return
        right = sum(margin > 0 for margin in margins)
        share = proportion(right, len(margins))
        loss = bradley_terry(chosen=torch.tensor(margins), rejected=torch.zeros(len(margins)))
        about = {
            "pairs": len(margins), "successes": right, "accuracy": share.mean, "low": share.low,
            "high": share.high, "loss": float(loss.mean()),
        } | calibration(margins, seed=self.config.seed)  # fmt: skip
        write_json(self.context.folder / "heldout.json", about)
        console.print(
            f"held out: {right:,} of {len(margins):,} pairs in the right order, {share.mean:.1%} "
            f"[{share.low:.1%}, {share.high:.1%}]"
        )

    def save(self, folder: Path | None) -> None:
        """With a pad token in the tokenizer: whoever scores a batch has to pad it."""
        tokenizer = self.context.tokenizer
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = self.context.model.config.get_text_config().pad_token_id
        super().save(folder)

    @torch.no_grad()
    def _margins(self, rows: Sequence[Pair]) -> list[float]:
        """Score of chosen minus score of rejected, of every process's share."""
        scorer = self.context.unwrapped
        scorer.eval()
        found = []
        for one in self._packs(self.context.share(list(rows)), weight=1.0):
            scores = scorer(one.to(self.context.accelerator.device)).view(-1, 2)
            found += (scores[:, 0] - scores[:, 1]).tolist()
        return self.context.gathered(found)

    def _packs(self, rows: Sequence[Pair], *, weight: float) -> list[Pack]:
        groups = []
        for row in rows:
            columns: dict[str, float | Sequence[float]] = {"weight": weight, "margin": row.margin}
            both = [replace(one, columns=columns) for one in (row.chosen, row.rejected)]
            groups.append(Group(prompt=row.prompt, completions=both))
        return self.packed(groups, whole=True)


def _held_out(rows: list[Pair], config: RewardModel) -> tuple[list[Pair], list[Pair]]:
    """(to train on, kept out): a seeded draw, less those whose answers are in both parts."""
    count = round(config.holdout * len(rows))
    drawn = random.Random(f"held out {config.seed}").sample(range(len(rows)), count)
    out = set(drawn)
    heldout = [rows[i] for i in sorted(out)]
    seen = {key for pair in heldout for key in _keys(pair)}
    kept = [
        pair for i, pair in enumerate(rows) if i not in out and not seen.intersection(_keys(pair))
    ]
    if not kept:
        raise data.DataError(
            f"--holdout {config.holdout} of {len(rows)} pairs leaves none to train on"
        )
    return kept, heldout


def _keys(pair: Pair) -> list[tuple[int, ...]]:
    return [(*pair.prompt, *one.ids) for one in (pair.chosen, pair.rejected)]


def _tokens(pair: Pair) -> int:
    sides: tuple[Completion, ...] = (pair.chosen, pair.rejected)
    return len(pair.prompt) + sum(len(one.ids) for one in sides)
