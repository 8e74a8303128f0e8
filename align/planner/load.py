"""What a process computes at once and in a step: the largest pack, its segments, a step's tokens.

Where the rows and a tokenizer are at hand, they are read; else every sequence is taken to be as
long as the configuration lets it be, which is the most that can come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from statistics import fmean

from align.config import Distill, Dpo, Passes, Ppo, RewardModel, Rollouts, Sample, Stage

MANY = 1_000_000  # optimizer steps, where their number is not known
PADDING = 1.15  # of attention's small batches among themselves, over the pairs that are needed


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tokens of a prompt and of each completion of it."""

    prompt: int
    completions: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prompt + sum(self.completions)


@dataclass(frozen=True, kw_only=True)
class Load:
    """The largest pack. tokens: computed; trained: those with a log-probability; pairs: of a query
    and a key; read: keys, a prompt's counted for each of its completions too; longest: of its
    sequences. later: tokens of the largest pack that comes after it in an optimizer step, 0 for
    none. a_step: tokens that a process trains on a step; sampled: that it samples; rows:
    completions sampled together; prompt: the longest one sampled from. updates: optimizer steps of
    the run, of which the first `warming` leave the policy as it is.
    """

    tokens: int
    trained: int
    pairs: int
    read: int
    longest: int
    a_step: float
    sampled: float = 0.0
    rows: int = 0
    prompt: int = 0
    later: int = 0
    updates: int = MANY
    warming: int = 0


def load(config: Stage, rows: Sequence[Row] | None, *, processes: int = 1) -> Load:
    """rows: the data's, of prompts without completions where those are sampled; None: not known."""
    if isinstance(config, Passes):
        return _passes(config, rows, processes)
    assert isinstance(config, Rollouts | Distill | Sample)
    return _rolls(config, rows, processes)


def part(load: Load, tokens: int) -> Load:
    """A smaller pack of such sequences."""
    share = tokens / load.tokens
    return replace(
        load,
        tokens=tokens,
        trained=round(share * load.trained),
        pairs=round(share * load.pairs),
        read=round(share * load.read),
    )


def token_budget(config: Stage) -> int:
    """Of a pack: PPO's go through two backbones unless they are one."""
    budget = config.compute.token_budget
    halved = isinstance(config, Ppo) and config.critic != "shared"
    return max(1, budget // 2) if halved else budget


def _passes(config: Passes, rows: Sequence[Row] | None, processes: int) -> Load:
    share = max(1, config.batch // processes)
    whole = isinstance(config, Dpo | RewardModel)
    guessed = not rows
    if not rows:
        half = config.max_tokens // 2
        completions = (config.max_tokens - half,) * (2 if whole else 1)
        rows = [Row(prompt=half, completions=completions)]
    most = sorted(rows, key=lambda row: row.tokens, reverse=True)
    endless = islice(cycle(most), max(share, len(most))) if len(rows) == 1 else iter(most)
    kept = _filled(endless, token_budget(config), share)
    mean = fmean(row.tokens for row in rows)
    return _measured(
        kept,
        scored=isinstance(config, RewardModel),
        a_step=mean * share,
        later=_later(mean * share, kept),
        updates=MANY if guessed else ceil(config.epochs * len(rows) / config.batch),
    )


def _rolls(config: Rollouts | Distill | Sample, rows: Sequence[Row] | None, processes: int) -> Load:
    sampling = config.sampling
    share = max(1, config.prompts // processes)
    minibatches = config.minibatches if isinstance(config, Rollouts) else 1
    prompts = [row.prompt for row in rows] if rows else [sampling.max_prompt_tokens]
    longest = max(prompts)
    budget = token_budget(config)
    answers = (sampling.max_tokens,) * config.samples
    # A group that does not fit is cut between completions, its prompt repeated.
    room = max(1, (budget - longest) // sampling.max_tokens)
    pieces = [answers[i : i + room] for i in range(0, len(answers), room)]
    groups = [
        Row(prompt=prompt, completions=piece)
        for prompt in islice(cycle(sorted(prompts, reverse=True)), max(1, share // minibatches))
        for piece in pieces
    ]
    mean = fmean(prompts) + config.samples * sampling.max_tokens
    kept = _filled(iter(groups), budget, len(groups), fill=True)
    each = minibatches * config.iterations if isinstance(config, Rollouts) else 1
    drawn = config.on_policy if isinstance(config, Distill) else 1.0
    return _measured(
        kept,
        a_step=mean * share,
        sampled=share * config.samples * sampling.max_tokens * drawn,
        rows=share * config.samples if drawn else 0,
        later=_later(mean * share / minibatches, kept),
        updates=config.steps * each or MANY if isinstance(config, Rollouts) else MANY,
        warming=config.critic_warmup * each if isinstance(config, Ppo) else 0,
        prompt=longest,
    )


def _later(tokens: float, kept: Sequence[Row]) -> int:
    """Of so many tokens of an optimizer step, what the second pack has."""
    first = sum(row.tokens for row in kept)
    return round(min(max(0.0, tokens - first), first))


def _filled(rows: Iterator[Row], budget: int, most: int, *, fill: bool = False) -> list[Row]:
    """The longest row, and the next ones that still fit beside it. fill: the last one is cut so
    that the pack is full, as sampled completions may have any length.
    """
    found: list[Row] = []
    used = 0
    for row in rows:
        if len(found) == most or used >= budget:
            break
        if fill and found and used + row.tokens > budget:
            row = _cut(row, budget - used)
        if row.completions and (not found or used + row.tokens <= budget):
            found.append(row)
            used += row.tokens
    return found


def _cut(row: Row, room: int) -> Row:
    """The group with completions for that many tokens."""
    kept = []
    room -= row.prompt
    for length in row.completions:
        if room > 0:
            kept.append(min(length, room))
            room -= length
    return Row(prompt=row.prompt, completions=tuple(kept))


def _measured(kept: Sequence[Row], *, scored: bool = False, **figures: float) -> Load:
    """The pack of these rows. scored: one number is read of a completion, not one a token."""
    pairs = read = trained = 0
    for row in kept:
        pairs += row.prompt**2 + sum(one * (row.prompt + one) for one in row.completions)
        read += row.prompt + sum(row.prompt + one for one in row.completions)
        trained += len(row.completions) if scored else sum(row.completions)
    return Load(
        tokens=sum(row.tokens for row in kept),
        trained=trained,
        pairs=round(PADDING * pairs),
        read=round(PADDING * read),
        longest=max(row.prompt + max(row.completions) for row in kept),
        **figures,  # type: ignore[arg-type]
    )
