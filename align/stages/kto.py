"""KTO (arXiv 2402.01306): completions called good or bad, each alone.

The reference point is how far the policy is from the reference on answers that do not belong to
their prompts: each prompt of the step with the completion of the row before it, as in TRL 1.16, but
over all processes and packs of the step, so that it does not depend on how the batch is cut. The
loss is the mean over the rows of the optimizer step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import data
from align.config import Kto
from align.objectives.preference import kto_loss, kto_reference_point
from align.objectives.reduce import sequence_sum
from align.packing import Completion, Group, Pack
from align.stages.base import PassStage
from align.stages.context import Context
from align.stages.preference import spread
from align.stages.reference import reference_logprobs
from align.stages.rendered import labelled
from align.training.batch import Batch


class KtoStage(PassStage):
    """collect: the next rows and the reference point. loss: the prospect-theoretic value lost."""

    def __init__(self, config: Kto, context: Context, rows: Any) -> None:
        super().__init__(config, context, labelled(rows, config, context))
        if len({row.label for row in self.rows}) < 2:
            raise data.DataError("KTO needs rows of both labels, true and false; all are alike")
        self.matched: dict[int, Tensor] = {}  # of each row that will be seen
        self.mismatched: dict[int, Tensor] = {}  # of each place
        self.point = 0.0

    def arithmetic(self) -> dict[str, str]:
        tokens = sum(len(row.prompt) + 2 * len(row.completion.ids) for row in self.rows)
        good = sum(row.label for row in self.rows)
        return {
            "rows": f"{len(self.rows):,} ({good:,} good), {self.config.epochs:g} epochs",
            "optimizer steps": f"{self.steps:,} of {self.config.batch} rows",
            "tokens": f"{tokens * self.config.epochs:,.0f}, half of the completions for the "
            "reference point; the reference reads all once before",
        }

    def prepare(self) -> None:
        seen = sorted({self.row(place) for place in range(self.total)})
        groups = [self._group(row) for row in seen]
        strange = [self._stranger(step, i) for step in range(1, self.steps + 1)
                   for i in range(len(self.places(step)))]  # fmt: skip
        computed = reference_logprobs(
            [*groups, *strange], self.context, token_budget=self.config.compute.token_budget
        )
        self.matched = {row: one[0] for row, one in zip(seen, computed, strict=False)}
        self.mismatched = {place: one[0] for place, one in enumerate(computed[len(seen) :])}

    def collect(self, step: int) -> Batch:
        places = self.places(step)
        self.point = self._reference_point(step)
        groups = []
        for row in self.context.share([self.row(place) for place in places]):
            completion = self.rows[row].completion
            columns = {
                "weight": 1 / len(places),
                "label": float(self.rows[row].label),
                "reference": spread(self.matched[row], completion),
            }
            groups.append(self._group(row, replace(completion, columns=columns)))
        return Batch(
            minibatches=[self.packed(groups)],
            columns=("weight", "label", "reference"),
            metrics={"kl": self.point},
            unit="rows",
        )

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        ratio = self.context.module(pack, entropy=False)[0] - pack.columns["reference"]
        log_ratio = sequence_sum(ratio, sequence=pack.sequence, lengths=pack.lengths())
        desirable = pack.per_sequence("label") > 0.5
        loss = kto_loss(
            log_ratio=log_ratio,
            desirable=desirable,
            reference_point=log_ratio.new_tensor(self.point),
            beta=self.config.beta,
            desirable_weight=self.config.desirable_weight,
            undesirable_weight=self.config.undesirable_weight,
        )
        implicit = self.config.beta * log_ratio.detach()
        return (loss * pack.per_sequence("weight")).sum(), {
            "rows": torch.tensor(float(len(implicit)), device=implicit.device),
            "good": desirable.float().sum(),
            "chosen": implicit[desirable].sum(),
            "rejected": implicit[~desirable].sum(),
        }

    @torch.no_grad()
    def _reference_point(self, step: int) -> float:
        """Of the mismatched completions of all processes."""
        first = self.places(step).start
        groups = []
        for i in self.context.share(list(range(len(self.places(step))))):
            group = self._stranger(step, i)
            (completion,) = group.completions
            reference = spread(self.mismatched[first + i], completion)
            completion = replace(completion, columns={"reference": reference})
            groups.append(Group(prompt=group.prompt, completions=[completion]))
        policy = self.context.policy
        policy.eval()
        found: list[float] = []
        for one in self.packed(groups):
            moved = one.to(self.context.accelerator.device)
            ratio = policy(moved, entropy=False)[0] - moved.columns["reference"]
            found += sequence_sum(ratio, sequence=moved.sequence, lengths=moved.lengths()).tolist()
        gathered = torch.tensor(self.context.gathered(found), dtype=torch.float64)
        return float(kto_reference_point(gathered))

    def learned(self, metrics: dict[str, float]) -> None:
        """Implicit rewards are means over the rows of one label, not over all."""
        good = metrics.pop("good")
        metrics["chosen"] /= good or 1.0
        metrics["rejected"] /= (1 - good) or 1.0
        metrics["margin"] = metrics["chosen"] - metrics["rejected"]

    def _group(self, row: int, completion: Completion | None = None) -> Group:
        found = self.rows[row]
        return Group(prompt=found.prompt, completions=[completion or found.completion])

    def _stranger(self, step: int, i: int) -> Group:
        """The prompt of the step's row i with the completion of the row before it.

        The first takes the last one's. A row that comes twice in a step is no stranger to itself,
        and one alone there takes the completion of the data set's next row.
        """
        places = self.places(step)
        mine = self.row(places[i])
        others = (self.row(places[i - back]) for back in range(1, len(places)))
        other = next((row for row in others if row != mine), (mine + 1) % len(self.rows))
        prompt, completion = self.rows[mine].prompt, self.rows[other].completion
        # Each fits with its own; together they must not exceed what the model was made for.
        room = max(1, self.config.max_tokens - len(prompt))
        mask = completion.mask[:room] if completion.mask else None
        cut = replace(completion, ids=completion.ids[:room], mask=mask)
        return Group(prompt=prompt, completions=[cut])
