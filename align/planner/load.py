"""What a process computes in a run: its heaviest packs, a step's tokens, how many steps.

Where the rows and a tokenizer are at hand, they are read; else every sequence is taken to be as
long as the configuration lets it be, which is the most that can come.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from statistics import fmean

from align.config import Distill, Dpo, Passes, Ppo, RewardModel, Rollouts, Sample, Stage
from align.planner.packs import Packed, Row, cut, drawn, filled, first_fit, heaviest, packed

MANY = 1_000_000  # optimizer steps, where their number is not known
LOOK = 300  # optimizer steps whose packs are looked at
CUT = 0.5  # of the completions that are sampled, those cut at the limit


@dataclass(frozen=True, kw_only=True)
class Load:
    """first: the heaviest pack that begins an optimizer step; later: that comes after others in
    one; tried: of the trial before the first step. sizes: packs of different sizes that a run
    computes. a_step: tokens that a process trains on a step; sampled: that it samples; rows:
    completions sampled together; prompt: the longest one sampled from. updates: optimizer steps of
    the run, of which the first `warming` leave the policy as it is.
    """

    first: Packed
    later: Packed | None
    tried: Packed
    a_step: float
    sizes: int = MANY
    sampled: float = 0.0
    rows: int = 0
    prompt: int = 0
    updates: int = MANY
    warming: int = 0

    @property
    def largest(self) -> Packed:
        """By its tokens."""
        packs = [one for one in (self.first, self.later, self.tried) if one]
        return max(packs, key=lambda one: one.tokens)


def load(config: Stage, rows: Sequence[Row] | None, *, processes: int = 1) -> Load:
    """rows: the data's, of prompts without completions where those are sampled; None: not known."""
    if isinstance(config, Passes):
        return _passes(config, rows, processes)
    assert isinstance(config, Rollouts | Distill | Sample)
    return _rolls(config, rows, processes)


def token_budget(config: Stage) -> int:
    """Of a pack: PPO's go through two backbones unless they are one."""
    budget = config.compute.token_budget
    halved = isinstance(config, Ppo) and config.critic != "shared"
    return max(1, budget // 2) if halved else budget


def _passes(config: Passes, rows: Sequence[Row] | None, processes: int) -> Load:
    share = max(1, config.batch // processes)
    budget = token_budget(config)
    whole = isinstance(config, Dpo | RewardModel)
    guessed = not rows
    if not rows:
        half = config.max_tokens // 2
        completions = (config.max_tokens - half,) * (2 if whole else 1)
        rows = [Row(prompt=half, completions=completions)]
    total = max(1, round(config.epochs * len(rows)))
    updates = MANY if guessed else ceil(total / config.batch)
    left = range(total, 0, -config.batch)[:LOOK]
    counts = [min(share, ceil(own / processes)) for own in left]
    chosen = [[*rows] * share] if guessed else drawn(rows, counts, config.seed)
    scored = isinstance(config, RewardModel)
    steps = [[packed(one, scored=scored) for one in first_fit(step, budget)] for step in chosen]
    most = sorted(rows, key=lambda row: row.tokens, reverse=True)
    endless = islice(cycle(most), max(share, len(most))) if len(rows) == 1 else iter(most)
    tried = packed(filled(endless, budget, share), scored=scored)
    # In the first step there are no moments yet, and the trial's pack was as large.
    full = steps[1:] or steps
    return Load(
        first=heaviest(step[0] for step in full) or tried,
        later=heaviest(one for step in full for one in step[1:]),
        tried=tried,
        sizes=MANY if guessed else len({one.tokens for step in steps for one in step}),
        a_step=fmean(row.tokens for row in rows) * share,
        updates=updates,
    )


def _rolls(config: Rollouts | Distill | Sample, rows: Sequence[Row] | None, processes: int) -> Load:
    sampling = config.sampling
    share = max(1, config.prompts // processes)
    each = config.minibatches * config.iterations if isinstance(config, Rollouts) else 1
    prompts = [row.prompt for row in rows] if rows else [sampling.max_prompt_tokens]
    updates = config.steps * each or MANY if isinstance(config, Rollouts) else MANY
    packs = _sampled(config, prompts, share, min(updates, LOOK))
    longest = config.samples * sampling.max_tokens
    drawn_share = config.on_policy if isinstance(config, Distill) else 1.0
    first = heaviest(step[0] for step in packs)
    assert first is not None
    # Completions are mostly shorter than these, which are for the heaviest packs.
    sizes = ceil(len({one.tokens for step in packs for one in step}) / 2)
    return Load(
        first=first,
        later=heaviest(one for step in packs for one in step[1:]),
        tried=first,
        sizes=sizes,
        a_step=(fmean(prompts) + longest) * share,
        sampled=share * longest * drawn_share,
        rows=share * config.samples if drawn_share else 0,
        updates=updates,
        warming=config.critic_warmup * each if isinstance(config, Ppo) else 0,
        prompt=max(prompts),
    )


def _sampled(
    config: Rollouts | Distill | Sample, prompts: Sequence[int], share: int, steps: int
) -> list[list[Packed]]:
    """Packs of optimizer steps with completions as a model writes them: half as long as may be, the
    others of any length.
    """
    source, most = random.Random(config.seed), config.sampling.max_tokens
    groups = max(1, share // (config.minibatches if isinstance(config, Rollouts) else 1))
    budget, found = token_budget(config), []
    for _ in range(steps):
        rows: list[Row] = []
        for _ in range(groups):
            lengths = [
                most if source.random() < CUT else source.randint(1 + most // 5, most)
                for _ in range(config.samples)
            ]
            rows += cut(Row(prompt=source.choice(prompts), completions=tuple(lengths)), budget)
        found.append([packed(one) for one in first_fit(rows, budget)])
    return found
