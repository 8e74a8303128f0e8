"""The largest pack that a stage will compute, made by the stage itself from its longest rows.

Rows and prompts are the data's, sampled completions are as long as they may become. A pack that is
full to the token budget is the most that memory must have room for, whatever is in it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import torch

from align.packing import Pack
from align.rollout import Sample
from align.stages.context import Context
from align.stages.rolled import Rolled
from rewards import Score


@dataclass(frozen=True, kw_only=True)
class Heaviest:
    """stage: a copy of the stage, whose loss takes the pack. old: the policy's own log-probs of the
    pack's trained tokens in the form in which a ratio starts from them; None where none does.
    """

    stage: Any
    pack: Pack
    columns: tuple[str, ...]
    old: torch.Tensor | None
    own: bool
    """Whether `old` comes from this very pack, and not from one packed otherwise."""


def tokens_of(row: Any) -> int:
    """Of a row of any stage that passes over data, as it is packed."""
    if hasattr(row, "ids"):
        return len(row.ids)
    if hasattr(row, "completions"):
        answers = row.completions
    else:
        answers = [row.completion] if hasattr(row, "completion") else [row.chosen, row.rejected]
    return len(row.prompt) + sum(len(one.ids) for one in answers)


def passing(stage: Any, context: Context) -> Heaviest:
    """Of a stage that passes over rows; each process computes the same ones."""
    probe = _copied(stage, context)
    processes = context.accelerator.num_processes
    most = max(1, stage.config.batch // processes)
    probe.rows = _fitting(stage.rows, stage.token_budget(), most, padded=context.padded)
    count = len(probe.rows) * processes
    probe.total, probe.steps = count, 1
    probe.places = lambda step: range(count)
    probe.row = lambda place: place // processes
    probe.prepare()
    batch = probe.collect(1)
    pack = _largest(batch.minibatches[0], context)
    old = pack.columns.get("reference")
    return Heaviest(stage=probe, pack=pack, columns=batch.columns, old=old, own=False)


@torch.no_grad()
def rolling(stage: Any, context: Context, sampled: Sequence[Rolled]) -> Heaviest:
    """Of a stage that learns from rollouts. sampled: whose tokens the completions are made of."""
    probe = _copied(stage, context)
    config = stage.config
    probe.config = replace(config, minibatches=1)
    share = config.prompts // (context.accelerator.num_processes * config.minibatches)
    groups = _groups(probe, max(1, share), sampled)
    probe.compare(groups)
    pack = _largest(probe.minibatches(groups, {})[0], context)
    probe.fill(1, [[pack]], groups, {})
    policy = context.policy
    policy.eval()
    old = pack.columns.get("old")
    if old is None:
        old = policy(pack, entropy=False)[0]
    pack.columns["sampler"] = old  # a made-up text has no log-probs of the sampler's
    return Heaviest(stage=probe, pack=pack, columns=probe.columns(1), old=old, own=True)


def distilling(stage: Any, context: Context, sampled: Sequence[Rolled]) -> Heaviest:
    """Of a distillation: sampled completions where there are any, else those of the data."""
    probe = _copied(stage, context)
    config = stage.config
    share = max(1, config.prompts // context.accelerator.num_processes)
    if config.on_policy:
        groups = _groups(probe, share, sampled)
    else:
        most = config.sampling.max_tokens
        rows = [(row, prompt, list(one.ids[:most])) for row, (prompt, one) in stage.own.items()]
        kept = _fitting(rows, stage.token_budget(), share, padded=context.padded,
                        size=lambda row: len(row[1]) + len(row[2]))  # fmt: skip
        groups = [_group(row, prompt, [ids], None) for row, prompt, ids in kept]
    tokens = sum(len(sample.ids) for group in groups for sample in group.samples)
    pack = _largest(probe.packs(groups, weight=1 / tokens), context)
    return Heaviest(stage=probe, pack=pack, columns=("weight",), old=None, own=False)


def _copied(stage: Any, context: Context) -> Any:
    """The stage with the bare module: each process computes by itself, unless it is sharded."""
    probe = copy.copy(stage)
    probe.context = replace(context, module=context.unwrapped)
    return probe


def _largest(packs: Sequence[Pack], context: Context) -> Pack:
    found = max(packs, key=lambda one: (one.tokens, len(one.target)))
    return found.to(context.accelerator.device)


def _fitting(
    rows: Sequence[Any], budget: int, most: int, *, padded: bool, size: Any = tokens_of
) -> list[Any]:
    """The longest row, and the longest of the others that still fit beside it; at most so many."""
    found: list[Any] = []
    used = 0
    for row in sorted(rows, key=size, reverse=True):
        # A padded row is as wide as the longest.
        tokens = size(found[0] if padded and found else row)
        if not found or used + tokens <= budget:
            found.append(row)
            used += tokens
        if len(found) == most:
            break
    return found


def _groups(stage: Any, most: int, sampled: Sequence[Rolled]) -> list[Rolled]:
    """Longest prompts with completions that fill one pack; what is left of the last group's number
    are completions of a token.
    """
    config, room = stage.config, stage.token_budget()
    source = [sample for group in sampled for sample in group.samples]
    prompts = sorted(stage.prompts.kept, key=lambda one: len(one[1]), reverse=True)
    groups: list[Rolled] = []
    for row, prompt in islice(cycle(prompts), most):
        room -= len(prompt)
        answers = []
        for _ in range(config.samples):
            length = max(1, min(config.sampling.max_tokens, room))
            if not groups and not answers:
                length = config.sampling.max_tokens
            room -= length
            ids = source[len(answers) % len(source)].ids if source else prompt
            answers.append(list(islice(cycle(ids), length)))
        groups.append(_group(row, prompt, answers, len(groups) * config.samples))
        if room <= 0:
            break
    return groups


def _group(row: int, prompt: list[int], answers: list[list[int]], first: int | None) -> Rolled:
    """Rewarded by turns, so that every completion has an advantage."""
    return Rolled(
        row=row,
        prompt=prompt,
        samples=[Sample(ids=ids, logprobs=[0.0] * len(ids), truncated=False) for ids in answers],
        texts=[""] * len(answers),
        scores=[
            Score(value=float(i % 2), correct=None, parts={}, outcome="ok")
            for i in range(len(answers))
        ],
        advantages=[0.0] * len(answers),
        first=first or 0,
    )
