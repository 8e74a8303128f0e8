"""Does the reward know right from wrong on these very rows? Asked before the first step, with the
recipe's own reward.

Each sampled row's gold answer, written in one of the usual forms, must be judged correct. An empty
completion, an empty answer in the right format and other rows' golds must not. A reward that says
nothing of correctness but reads the gold answer, such as a function of one's own, must give the
gold more than those. A reward that fails this trains the wrong thing, and the curves do not show
it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data.prompts import worked
from data.reward_scores import (
    EMPTY,
    FORMATS,
    GOLD_FORMAT,
    THINKING,
    RewardCheck,
    RewardCheckError,
    mean,
    others,
    scores,
)
from data.reward_values import check_values
from data.rows import DataError, nth


def check_reward(
    rows: Sequence[Mapping[str, Any]],
    reward: Callable[..., Any],
    sample: int = 64,
    *,
    gold_format: str | None = None,
    tolerance: float = 0.0,
) -> RewardCheck:
    """Runs the reward on gold, empty and shuffled answers of `sample` rows drawn by lot, always the
    same, from those that have a solution. Rows in which the reward does not judge (None, as where
    it is gated) are asked nothing further.

    reward: an object with `score`, or a plain TRL function. gold_format: how the recipe writes an
    answer, with `{solution}` in it; None tries the usual forms. tolerance: the share of golds that
    may be refused (some data sets hold golds that no parser reads), of 4 to 19 rows at least one;
    nothing else is tolerated. A reward that neither judges correctness nor reads the gold, such as
    format alone, gives shares of None. Raises RewardCheckError, and DataError where no row has a
    solution.
    """
    places = _drawn(rows, sample)
    if not places:
        raise DataError("the reward cannot be checked: no row has a solution")
    asked = [rows[place] for place in places]
    forms = FORMATS if gold_format is None else (gold_format,)
    tried = [(form, scores(reward, asked, _written(form, asked))) for form in forms[:1]]
    if not all(_right(score) in (True, None) for score in tried[0][1]) or _by_value(tried[0][1]):
        tried += [(form, scores(reward, asked, _written(form, asked))) for form in forms[1:]]
    if _by_value(tried[0][1]):
        return check_values(reward, places, asked, tried)
    form, right = max(tried, key=lambda one: sum(_right(score) is True for score in one[1]))
    judged = [i for i, score in enumerate(right) if _right(score) is not None]
    if not judged:
        return RewardCheck(rows=len(places), gold=None, empty=None, shuffled=None, offending=None)
    places, asked, right = ([found[i] for i in judged] for found in (places, asked, right))
    golds = [str(row["solution"]) for row in asked]
    refused = [index for index, score in enumerate(right) if not _right(score)]
    allowed = _allowed(tolerance, len(asked))
    if len(refused) > allowed:
        silent = sum(right[index].outcome != "ok" for index in refused)
        _raise_refused(places, golds, refused, form if gold_format else GOLD_FORMAT, silent)
    unread = _unread(reward, asked)
    if len(unread) > allowed:
        index = unread[0]
        raise RewardCheckError(
            f"{nth(places[index])}: its gold answer (column 'solution') cannot be read: "
            f"{golds[index]!r} ({len(unread)} of {len(asked)} rows). Right and wrong answers would "
            "earn the same there. Write golds as the bare answer, such as 18 or \\boxed{1/2}, "
            "and drop rows without one"
        )
    refused = sorted({*refused, *unread})
    empty = _accepted(reward, asked, EMPTY)
    if any(empty):
        index = empty.index(True)
        raise RewardCheckError(
            f"{nth(places[index])}: the reward judges an empty answer correct (gold "
            f"{golds[index]!r}; {sum(empty)} of {len(empty)} rows). Training would reward silence: "
            "check the reward's parsing"
        )
    apart = others(golds)
    shuffled = None
    if apart is not None:
        pairs = [
            scores(reward, asked, [form.replace("{solution}", other) for other in each])
            for each in apart
        ]
        shuffled = [all(_right(one) is True for one in pair) for pair in zip(*pairs, strict=True)]
        if any(shuffled):
            index = shuffled.index(True)
            raise RewardCheckError(
                f"{nth(places[index])}: the reward judges other rows' answers correct (gold "
                f"{golds[index]!r}; {sum(shuffled)} of {len(shuffled)} rows). Check that it reads "
                "the solution column"
            )
        _check_order(right, pairs)
    return RewardCheck(
        rows=len(places),
        gold=1 - len(refused) / len(asked),
        empty=0.0,
        shuffled=None if shuffled is None else 0.0,
        offending=places[refused[0]] if refused else None,
    )


def _drawn(rows: Sequence[Mapping[str, Any]], sample: int) -> list[int]:
    """Places of rows with a solution, in order. By lot: every so many rows of an even mixture are
    all of one kind.
    """
    columnar = hasattr(rows, "column_names") and "solution" in rows.column_names
    golds = rows["solution"] if columnar else [row.get("solution") for row in rows]
    places = [place for place, gold in enumerate(golds) if gold]
    return sorted(random.Random("reward check").sample(places, min(sample, len(places))))


def _allowed(tolerance: float, count: int) -> float:
    """How many golds of so many may be refused: what a slow reward is asked is four rows, and one
    bad gold among them says no more than three among 64.
    """
    return max(tolerance * count, float(tolerance > 0 and 4 <= count < 20))


def _written(form: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [form.replace("{solution}", str(row["solution"])) for row in rows]


def _right(score: Any) -> bool | None:
    """Correct, not correct, or None where the reward does not judge."""
    if score.correct is None:
        # A gold that cannot be read is no row that the reward does not apply to.
        return None if score.outcome == "ok" else False
    return score.correct >= 1.0


def _by_value(found: Sequence[Any]) -> bool:
    """Whether the reward says nothing of correctness, and has values all the same."""
    return all(_right(score) is None for score in found) and any(
        getattr(score, "value", None) is not None for score in found
    )


def _unread(reward: Callable[..., Any], rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Places of golds that can be held against no answer but their own text."""
    found = scores(reward, rows, [worked(THINKING, "5")] * len(rows))
    return [i for i, score in enumerate(found) if score.outcome == "unscorable"]


def _accepted(
    reward: Callable[..., Any], rows: Sequence[Mapping[str, Any]], texts: Sequence[str]
) -> list[bool]:
    """Whether any of these texts is judged correct, for each row."""
    found = [scores(reward, rows, [text] * len(rows)) for text in texts]
    return [any(_right(one) is True for one in each) for each in zip(*found, strict=True)]


def _check_order(right: Sequence[Any], pairs: Sequence[Sequence[Any]]) -> None:
    """What is judged right must also earn more: a weight of 0 or below turns that round."""
    gold, other = mean(right), max(mean(each) for each in pairs)
    if gold <= other:
        raise RewardCheckError(
            f"right answers earn {gold:g} on average and wrong ones {other:g}: the reward judges "
            "them apart and does not prefer the right ones. Check the weights of its parts"
        )


def _raise_refused(
    places: Sequence[int], golds: Sequence[str], refused: Sequence[int], form: str, unread: int
) -> None:
    gold = golds[refused[0]]
    why = f"; {unread} cannot be read as an answer at all" if unread else ""
    raise RewardCheckError(
        f"{nth(places[refused[0]])}: the reward does not judge the gold answer correct: "
        f"solution {gold!r} written as {form.replace('{solution}', gold)!r} ({len(refused)} of "
        f"{len(golds)} rows{why}). Mend or drop such rows, or allow a share of them with tolerance="
    )
