"""Does the reward know right from wrong on these very rows? Asked before the first step, with the
recipe's own reward.

Each sampled row's gold answer, written in the recipe's format, must be judged correct. An empty
completion, an empty answer in the right format and other rows' golds must not. A reward that fails
this trains the wrong thing, and the curves do not show it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.prompts import worked
from data.rows import DataError, assistant

THINKING = "The answer follows from what the question says."
GOLD_FORMAT = worked(THINKING, "{solution}")
EMPTY = ("", worked(THINKING, ""))


class RewardCheckError(DataError):
    """A reward that takes gold for wrong, or nothing for right, on the rows it is to judge."""


@dataclass(frozen=True, kw_only=True)
class RewardCheck:
    """Shares judged correct among the rows asked; None where not asked.

    rows: how many were asked. gold: of gold answers (1 wanted). empty: of empty ones, shuffled: of
    other rows' golds (0 wanted). offending: index of the first row that went wrong, None where all
    went right.
    """

    rows: int
    gold: float | None
    empty: float | None
    shuffled: float | None
    offending: int | None


def check_reward(
    rows: Sequence[Mapping[str, Any]],
    reward: Callable[..., Any],
    sample: int = 64,
    *,
    gold_format: str = GOLD_FORMAT,
    tolerance: float = 0.0,
) -> RewardCheck:
    """Runs the reward on gold, empty and shuffled answers of `sample` rows drawn by lot, always the
    same, from those that have a solution. Rows in which the reward does not judge (None, as where
    it is gated) are asked nothing further.

    reward: an object with `score`, or a plain TRL function, where a value of 1 or more counts as
    correct. gold_format: how the recipe writes an answer, with `{solution}` in it. tolerance: the
    share of golds that may be refused (some data sets hold golds that no parser reads); nothing
    else is tolerated. A reward that judges no correctness, such as format alone, gives shares of
    None. Raises RewardCheckError, and DataError where no row has a solution.
    """
    places = _drawn(rows, sample)
    if not places:
        raise DataError("the reward cannot be checked: no row has a solution")
    asked = [rows[place] for place in places]
    written = [gold_format.replace("{solution}", str(row["solution"])) for row in asked]
    right = _judge(reward, asked, written)
    judged = [i for i, verdict in enumerate(right) if verdict is not None]
    if not judged:
        return RewardCheck(rows=len(places), gold=None, empty=None, shuffled=None, offending=None)
    places, asked, right = ([found[i] for i in judged] for found in (places, asked, right))
    golds = [str(row["solution"]) for row in asked]

    def judge(answers: Sequence[str]) -> list[bool | None]:
        return _judge(reward, asked, answers)

    refused = [index for index, verdict in enumerate(right) if verdict is not True]
    if len(refused) > tolerance * len(asked):
        _raise_refused(places[refused[0]], golds[refused[0]], len(refused), len(asked), gold_format)
    empty = [
        any(pair) for pair in zip(*(judge([text] * len(asked)) for text in EMPTY), strict=True)
    ]
    if any(empty):
        index = empty.index(True)
        raise RewardCheckError(
            f"row {places[index]}: the reward judges an empty answer correct (gold "
            f"{golds[index]!r}; {sum(empty)} of {len(empty)} rows). Training would reward silence: "
            "check the reward's parsing"
        )
    shuffled = _shuffled(judge, golds, gold_format)
    if shuffled is not None and any(shuffled):
        index = shuffled.index(True)
        raise RewardCheckError(
            f"row {places[index]}: the reward judges other rows' answers correct (gold "
            f"{golds[index]!r}; {sum(shuffled)} of {len(shuffled)} rows). Check that it reads the "
            "solution column"
        )
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


def _shuffled(
    judge: Callable[[Sequence[str]], list[bool | None]], golds: list[str], gold_format: str
) -> list[bool] | None:
    """Whether each row accepts others' golds; None where there are not three different ones.

    Two golds that differ as text may be equal in value (1/2 and 0.5), so a row offends only by
    accepting two others.
    """
    different = list(dict.fromkeys(golds))
    if len(different) < 3:
        return None
    place = {gold: index for index, gold in enumerate(different)}
    rounds = []
    for ahead in (1, 2):
        others = [different[(place[gold] + ahead) % len(different)] for gold in golds]
        rounds.append(judge([gold_format.replace("{solution}", other) for other in others]))
    return [all(verdict is True for verdict in pair) for pair in zip(*rounds, strict=True)]


def _judge(
    reward: Callable[..., Any], rows: list[Mapping[str, Any]], answers: Sequence[str]
) -> list[bool | None]:
    """One verdict a row: correct, not correct, or None where the reward does not judge."""
    completions = [
        answer if isinstance(row.get("prompt"), str) else assistant(answer)
        for row, answer in zip(rows, answers, strict=True)
    ]
    names = list(
        dict.fromkeys(name for row in rows for name in row if name not in ("prompt", "completion"))
    )
    columns = {name: [row.get(name) for row in rows] for name in names}
    prompts = [row.get("prompt") for row in rows]
    if hasattr(reward, "score"):
        scores = reward.score(completions, prompts=prompts, **columns)
        # A gold that cannot be read is no row that the reward does not apply to.
        verdicts = [
            0.0 if score.correct is None and score.outcome != "ok" else score.correct
            for score in scores
        ]
    else:
        verdicts = reward(completions=completions, prompts=prompts, **columns)
    return [None if verdict is None else verdict >= 1.0 for verdict in verdicts]


def _raise_refused(row: int, gold: str, count: int, asked: int, gold_format: str) -> None:
    raise RewardCheckError(
        f"row {row}: the reward does not judge the gold answer correct: solution {gold!r} written "
        f"as {gold_format.replace('{solution}', gold)!r} ({count} of {asked} rows). Mend or "
        "drop such rows, or allow a share of them with tolerance="
    )
