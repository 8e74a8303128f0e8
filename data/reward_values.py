"""A reward that says nothing of correctness, such as a function of one's own: does it give the gold
answer more than other rows' answers and none at all?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from data.reward_reads import columns_read
from data.reward_scores import EMPTY, RewardCheck, RewardCheckError, mean, others, scores
from data.rows import nth

TOLD = 0.75  # share of rows in which a reward of values must tell gold from the rest


def check_values(
    reward: Callable[..., Any],
    places: list[int],
    asked: list[Mapping[str, Any]],
    tried: Sequence[tuple[str, Sequence[Any]]],
) -> RewardCheck:
    """For a reward of values alone. Raises RewardCheckError where it judges in two steps, such as
    right and wrong, or gives one value to all, and reads the gold; or reads no column at all. The
    gold of one with more values may be something else than the best answer, such as a length: that
    is a doubt.
    """
    none = RewardCheck(rows=len(places), gold=None, empty=None, shuffled=None, offending=None)
    applies = [i for i, score in enumerate(tried[0][1]) if score.value is not None]
    places, asked = ([given[i] for i in applies] for given in (places, asked))
    tried = [(form, [found[i] for i in applies]) for form, found in tried]
    golds = [str(row["solution"]) for row in asked]
    apart = others(golds)
    if apart is None:
        return none
    form, right = max(tried, key=lambda one: mean(one[1]))
    wrong = [
        scores(reward, asked, [form.replace("{solution}", other) for other in each])
        for each in apart
    ]
    empty = [scores(reward, asked, [text] * len(asked)) for text in EMPTY]
    found = (*(each for _, each in tried), *wrong, *empty)
    everything = {one.value for each in found for one in each}
    read = columns_read(reward, asked, [form.replace("{solution}", gold) for gold in golds])
    if "solution" not in read:
        if len(everything) > 1:
            return none
        if read:
            return replace(none, doubt=_deaf(read, everything, count=len(places)))
    first, count = places[0], len(places)
    told = [
        _worth(mine) > min(map(_worth, rest)) for mine, *rest in zip(right, *wrong, strict=True)
    ]
    spoke = [
        _worth(mine) > max(map(_worth, rest)) for mine, *rest in zip(right, *empty, strict=True)
    ]
    gold, other = mean(right), max(map(mean, wrong))
    steps = {one.value for each in (right, *wrong) for one in each}
    if sum(told) < TOLD * count:
        nothing = sum(spoke) < TOLD * count
        what = "does not judge the gold answer correct" if nothing else (
            "judges other rows' answers correct"
        )  # fmt: skip
        said = (
            f"{nth(places[told.index(False)])}: the reward {what}: on {count} rows the gold answer "
            f"({nth(first)}: {golds[0]!r}) earns {gold:g} on average, other rows' answers "
            f"{other:g}, written as {form.replace('{solution}', golds[0])!r} and in "
            f"{len(tried) - 1} other forms. Check that it reads the solution column, and the form "
            "of its answers"
        )
        return _refused(said, none, certain=len(steps) <= 2)
    if sum(spoke) < TOLD * count:
        said = (
            f"{nth(places[spoke.index(False)])}: the reward gives an empty answer as much as the "
            f"gold one ({max(map(mean, empty)):g} and {gold:g} on average). Training would reward "
            "silence: check the reward's parsing"
        )
        return _refused(said, none, certain=len(steps) <= 2)
    return RewardCheck(rows=count, gold=sum(told) / count, empty=0.0, shuffled=0.0, offending=None)


def _worth(score: Any) -> float:
    return -math.inf if score.value is None else score.value


def _refused(said: str, none: RewardCheck, *, certain: bool) -> RewardCheck:
    if certain:
        raise RewardCheckError(said)
    return replace(none, doubt=f"{said}. It may be meant where solution is no answer")


def _deaf(read: frozenset[str], everything: set[float | None], *, count: int) -> str:
    (value,) = everything
    return (
        f"the reward gives {value:g} for every answer that was tried on {count} rows, their "
        f"solutions among them, and reads {', '.join(sorted(read))}, not solution; look whether a "
        "completion can earn anything else, and in what form"
    )
