"""On-policy distillation (GKD, arXiv 2306.13649): a student follows a teacher token by token.

A step takes prompts. The student writes completions of a share of them, as it is at that step; the
others are followed by their row's own completion. Both models read them all, and the student steps
down the divergence of its distribution from the teacher's, averaged over all completion tokens.

Departs from the paper: which prompts the student completes is drawn within a step, in the exact
share over the run, not by a coin a batch; no gradient goes through the sampling, as there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import data
from align import order
from align.config import Distill
from align.modeling.lora import merged_weights
from align.packing import Completion, Group, Pack
from align.preflight.subject import longest
from align.probe import why_not_packed
from align.rollout import Engine, Sample, seed_of
from align.stages.base import StageBase
from align.stages.context import Context
from align.stages.figures import Clock, sample_rows
from align.stages.modules import frozen_policy
from align.stages.rendered import answered
from align.stages.rolled import Prompts, Rolled, Sampler
from align.terminal.progress import console
from align.training.batch import Batch
from rewards import Score


@dataclass(kw_only=True)
class Own(Rolled):
    """A prompt with its row's own completion. mask: 1 on the tokens to follow."""

    mask: Sequence[int]


class DistillStage(StageBase):
    """collect: completions of the student and of the data. loss: divergence from the teacher."""

    def __init__(self, config: Distill, context: Context, rows: Any, engine: Engine) -> None:
        super().__init__(config, context)
        self.teacher = frozen_policy(
            config.teacher, context.policy, trust_remote_code=config.trust_remote_code
        )
        reason = why_not_packed(self.teacher, longest=longest(config))
        if reason and not context.padded:
            console.print(f"padded batches instead of shared-prefix packs: the teacher: {reason}")
            context.padded = True
        self.prompts = Prompts(_asked(rows), config, context)
        self.own: dict[int, tuple[list[int], Completion]] = {}
        if config.on_policy < 1:
            self.own = answered(self.prompts.rows, context)
            self.prompts.kept = [one for one in self.prompts.kept if one[0] in self.own]
            if not self.prompts.kept:
                raise data.DataError("no row has a completion that the chat template can render")
        self.engine = engine
        self.sampler = Sampler(config, context, engine, self.prompts)
        self.steps = config.steps or math.ceil(len(self.prompts.kept) / config.prompts)

    def arithmetic(self) -> dict[str, str]:
        config, kept = self.config, len(self.prompts.kept)
        prompts = self.steps * config.prompts
        sampled = math.floor(prompts * config.on_policy)
        return {
            "teacher": f"{self.teacher.model.num_parameters():,} parameters, from {config.teacher}",
            "prompts": f"{prompts:,} ({prompts / kept:.2f} passes over {kept:,})",
            "completions": f"{sampled * config.samples:,} of the student's, "
            f"{prompts - sampled:,} of the data's",
        }

    def collect(self, step: int) -> Batch:
        config, context, clock = self.config, self.context, Clock()
        if config.on_policy:
            with clock("sync"):
                self.engine.sync(merged_weights(context.model))
        with clock("sample"):
            groups = self._groups(step)
        samples = [sample for group in groups for sample in group.samples]
        tokens, completions, length, truncated, own = context.total(
            sum(sum(_mask(group, one)) for group in groups for one in group.samples),
            len(samples),
            sum(len(one.ids) for one in samples),
            sum(one.truncated for one in samples),
            sum(isinstance(group, Own) for group in groups),
        )
        packs = self.packs(groups, weight=1 / tokens)
        return Batch(
            minibatches=[packs],
            columns=("weight",),
            metrics={
                "length": length / completions,
                "truncated": truncated / completions,
                "on_policy": 1 - own / config.prompts,
                "computed_tokens": context.total(sum(one.tokens for one in packs))[0],
                **clock.figures(),
            },
            samples=self._logged(groups),
        )

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        values, figures = self.context.module(pack, self.teacher)
        names = ("kl/forward", "kl/reverse", "entropy")
        sums = dict(zip(names, figures.sum(1), strict=True))
        return (values * pack.columns["weight"]).sum(), sums

    def close(self) -> None:
        self.engine.close()

    def sampled(self, step: int) -> set[int]:
        """Which of the step's places the student completes."""
        config = self.config
        places = range((step - 1) * config.prompts, step * config.prompts)
        before, after = (math.floor(end * config.prompts * config.on_policy + 1e-9)
                         for end in (step - 1, step))  # fmt: skip
        drawn = sorted(places, key=lambda place: seed_of(config.seed, "on-policy", place))
        return set(drawn[: after - before])

    def _groups(self, step: int) -> list[Rolled]:
        """This rank's share, in the order of the places."""
        count, sampled = self.config.prompts, self.sampled(step)
        places = self.context.share(list(range((step - 1) * count, step * count)))
        mine = [place for place in places if place in sampled]
        written = self.sampler.sample(step, mine) if mine else []
        for group in written:
            group.scores = [NOT_SCORED] * len(group.samples)
        student = dict(zip(mine, written, strict=True))
        return [student.get(place) or self._own(place) for place in places]

    def _own(self, place: int) -> Own:
        kept = self.prompts.kept
        row, _ = kept[order.at(place, len(kept), self.config.seed)]
        prompt, completion = self.own[row]
        most = self.config.sampling.max_tokens
        ids = list(completion.ids[:most])
        mask = completion.mask or [1] * len(ids)
        return Own(
            row=row,
            prompt=prompt,
            samples=[Sample(ids=ids, logprobs=[], truncated=len(completion.ids) > most)],
            texts=[self.context.tokenizer.decode(ids, skip_special_tokens=True)],
            scores=[NOT_SCORED],
            advantages=[0.0],
            mask=mask[:most],
        )

    def packs(self, groups: Sequence[Rolled], *, weight: float) -> list[Pack]:
        laid_out = [
            Group(
                prompt=group.prompt,
                completions=[
                    Completion(ids=one.ids, mask=_mask(group, one), columns={"weight": weight})
                    for one in group.samples
                ],
            )
            for group in groups
        ]
        return [one.to(self.context.accelerator.device) for one in self.packed(laid_out)]

    def _logged(self, groups: Sequence[Rolled]) -> list[dict[str, Any]]:
        limit = math.ceil(self.config.samples_logged / self.context.accelerator.num_processes)
        rows = [
            row | {"on_policy": not isinstance(group, Own)}
            for group in groups
            for row in sample_rows([group], self.prompts.rows, limit=0)
        ]
        return rows[: limit or None]


NOT_SCORED = Score(value=None, correct=None, parts={}, outcome="ok")


def _mask(group: Rolled, sample: Sample) -> Sequence[int]:
    return group.mask if isinstance(group, Own) else [1] * len(sample.ids)


def _asked(rows: Any) -> Any:
    """Rows of whole chats as prompt and last answer, beside the columns that the log reads."""
    if "messages" not in rows.column_names:
        return rows
    made = []
    for row in rows:
        one = {name: row.get(name) for name in ("prompt", "completion", "solution")}
        chat = row["messages"]
        if chat is not None and (one["prompt"] is None or one["completion"] is None):
            one |= {"prompt": chat[:-1], "completion": chat[-1:]}
        made.append(one)
    return data.rows.dataset(made)
