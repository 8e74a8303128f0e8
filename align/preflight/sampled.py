"""A few groups sampled and scored as the stage will, and what they show, as plain values.

Seeded as step 0, which no training has: these samples are never trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from align.modeling.lora import merged_weights
from align.preflight.rehearsal import one_by_one
from align.rollout import EngineError, Sample
from align.stages.context import Context
from align.stages.rolled import RewardError, Rolled, Roller, Sampler

T = TypeVar("T")
PROMPTS = 4  # of each process, at most
# Completion tokens of each process, at most: 8 to 30 seconds of a CPU.
TOKENS = {"cpu": 2**13, "cuda": 2**16}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one group showed, an entry a completion. nats: what its tokens cost together. went_on:
    a special token that does not end completions and that it went on after, or none.
    """

    values: list[float | None]
    parts: list[dict[str, float | None]]
    outcomes: list[str]
    lengths: list[int]
    truncated: list[bool]
    texts: list[str]
    nats: list[float]
    went_on: list[str]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """This process's groups, what all processes' showed, and completion tokens a second of one
    process.
    """

    groups: list[Rolled]
    seen: list[Seen]
    rate: float


def size(config: Any, device: str) -> tuple[int, int]:
    """Prompts of each process, and completions of each: all of both where that is quick, else
    rather fewer completions.
    """
    room, least = TOKENS[device] // config.sampling.max_tokens, min(2, config.samples)
    prompts = max(1, min(PROMPTS, room // least))
    return prompts, max(least, min(config.samples, room // prompts))


def draw(
    sampler: Sampler, context: Context, *, sync: bool, places: Sequence[int], samples: int
) -> tuple[list[Rolled], float]:
    """This process's groups, and the seconds they took. sync: the engine gets the weights first.

    Raises EngineError, on all processes.
    """
    if sync:
        sampler.engine.sync(merged_weights(context.model))
    mine = context.share(list(places))
    requests = [replace(one, seeds=one.seeds[:samples]) for one in sampler.requests(0, mine)]
    engine = sampler.engine
    answers, seconds = together(lambda: engine.sample(requests) if requests else [], context)
    return sampler.rolled(mine, answers), seconds


def together(work: Callable[[], list[T]], context: Context) -> tuple[list[T], float]:
    """What this process has sampled, and the seconds.

    An EngineError on one of them is raised on all.
    """
    answers: list[T] = []
    begun, said = time.perf_counter(), ""
    try:
        answers = work()
    except EngineError as error:
        said = str(error)
    seconds = time.perf_counter() - begun
    if found := [one for one in context.gathered([said]) if one]:
        raise EngineError(found[0], shared=True)
    return answers, seconds


def score(roller: Roller, groups: Sequence[Rolled], context: Context) -> str:
    """Fill in the groups' scores; what the reward did wrong on some process, or nothing."""

    def work() -> None:
        one_by_one(roller, groups)
        roller.score(0, groups)

    return first_said(work, context)


def first_said(work: Callable[[], None], context: Context) -> str:
    """The first process's RewardError, in words, once all have done the work; empty for none."""
    said = ""
    try:
        work()
    except RewardError as error:
        said = str(error).removeprefix("step 0: ")
    return next((one for one in context.gathered([said]) if one), "")


def looked_at(
    groups: Sequence[Rolled], seconds: float, context: Context, stop: Sequence[int]
) -> Tried:
    """What all processes' groups show. stop: tokens that end a completion."""
    tokenizer = context.tokenizer
    special = {*tokenizer.all_special_ids} - {*stop}

    def went_on(sample: Sample) -> str:
        found = next((token for token in sample.ids[:-1] if token in special), None)
        return "" if found is None else str(tokenizer.convert_ids_to_tokens(found))

    mine = [
        Seen(
            values=[score.value for score in group.scores],
            parts=[score.parts for score in group.scores],
            outcomes=[score.outcome for score in group.scores],
            lengths=[len(sample.ids) for sample in group.samples],
            truncated=[sample.truncated for sample in group.samples],
            texts=list(group.texts),
            nats=[-sum(sample.logprobs) for sample in group.samples],
            went_on=[went_on(sample) for sample in group.samples],
        )
        for group in groups
    ]
    tokens, spent, processes = context.total(
        sum(sum(each.lengths) for each in mine), seconds if mine else 0.0, float(bool(mine))
    )
    rate = tokens / max(spent, 1e-6) if processes else 0.0
    return Tried(groups=list(groups), seen=context.gathered(mine), rate=rate)
