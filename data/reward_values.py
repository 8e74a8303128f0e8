"""A reward that says nothing of correctness, such as a function of one's own: does it give the gold
answer more than other rows' answers and none at all?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data.reward_scores import EMPTY, RewardCheck, RewardCheckError, mean, others, scores

TOLD = 0.75  # share of rows in which a reward of values must tell gold from the rest


def check_values(
    reward: Callable[..., Any],
    places: list[int],
    asked: list[Mapping[str, Any]],
    tried: Sequence[tuple[str, Sequence[Any]]],
) -> RewardCheck:
    """For a reward of values alone that reads the gold. Raises RewardCheckError."""
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
    if len(everything) > 1 and not _reads_solution(reward, asked[0]):
        return none
    first, count = places[0], len(places)
    told = [
        _worth(mine) > min(map(_worth, rest)) for mine, *rest in zip(right, *wrong, strict=True)
    ]
    spoke = [
        _worth(mine) > max(map(_worth, rest)) for mine, *rest in zip(right, *empty, strict=True)
    ]
    gold, other = mean(right), max(map(mean, wrong))
    if sum(told) < TOLD * count:
        nothing = sum(spoke) < TOLD * count
        what = "does not judge the gold answer correct" if nothing else (
            "judges other rows' answers correct"
        )  # fmt: skip
        raise RewardCheckError(
            f"row {places[told.index(False)]}: the reward {what}: on {count} rows the gold answer "
            f"(row {first}: {golds[0]!r}) earns {gold:g} on average, other rows' answers "
            f"{other:g}, written as {form.replace('{solution}', golds[0])!r} and in "
            f"{len(tried) - 1} other forms. Check that it reads the solution column, and the form "
            "of its answers"
        )
    if sum(spoke) < TOLD * count:
        raise RewardCheckError(
            f"row {places[spoke.index(False)]}: the reward gives an empty answer as much as the "
            f"gold one ({max(map(mean, empty)):g} and {gold:g} on average). Training would reward "
            "silence: check the reward's parsing"
        )
    return RewardCheck(rows=count, gold=sum(told) / count, empty=0.0, shuffled=0.0, offending=None)


def _worth(score: Any) -> float:
    return -math.inf if score.value is None else score.value


def _reads_solution(reward: Any, row: Mapping[str, Any]) -> bool:
    """Whether it asks for the gold answer, by a parameter or as one of the columns."""
    if hasattr(reward, "needed") and "solution" in reward.needed(row):
        return True
    function = getattr(reward, "fn", reward)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    named = getattr(code, "co_consts", ())
    inner = getattr(reward, "inner", ())
    return "solution" in named or any(_reads_solution(part, row) for part in inner)
