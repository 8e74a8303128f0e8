"""A reward put to the test: what it gives to answers written for given rows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rewards
from data.prompts import worked
from data.rows import DataError, assistant

THINKING = "The answer follows from what the question says."
GOLD_FORMAT = worked(THINKING, "{solution}")
# The first that the reward takes is the recipe's.
FORMATS = (
    GOLD_FORMAT,
    f"{THINKING} \\boxed{{{{solution}}}}",
    f"{THINKING}\n#### {{solution}}",
    "The answer is {solution}",
    "{solution}",
)
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


def drawn_rows(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """So many rows by lot, always the same; all where there are fewer."""
    places = random.Random("reward check").sample(range(len(rows)), min(count, len(rows)))
    return [rows[place] for place in sorted(places)]


def scores(
    reward: Callable[..., Any],
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[str],
    *,
    ids: Sequence[Sequence[int]] | None = None,
) -> list[Any]:
    """What the reward gives each row's answer. ids: the answers' tokens. Raises RewardCheckError
    for whatever it raised.
    """
    completions = [
        answer if isinstance(row.get("prompt"), str) else assistant(answer)
        for row, answer in zip(rows, answers, strict=True)
    ]
    names = list(
        dict.fromkeys(name for row in rows for name in row if name not in ("prompt", "completion"))
    )
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
    columns["prompts"] = [row.get("prompt") for row in rows]
    if ids is not None:
        columns["completion_ids"] = list(ids)
    judge = reward if hasattr(reward, "score") else rewards.from_trl(reward)
    patience = getattr(judge, "patience", 600.0)
    try:
        with rewards.contained(patience=patience, completions=len(completions)):
            return judge.score(completions, **columns)
    except Exception as error:  # a user's function may raise anything
        raise RewardCheckError(
            f"the reward {getattr(judge, 'name', judge)} raised {error!r} for the completion "
            f"{answers[0][:60]!r}; columns given: {', '.join(columns)}"
        ) from error


def others(golds: list[str]) -> list[list[str]] | None:
    """Two answers of other rows for each; None where there are not three different ones.

    Two golds that differ as text may be equal in value (1/2 and 0.5), so a row offends only by
    accepting two others.
    """
    different = list(dict.fromkeys(golds))
    if len(different) < 3:
        return None
    place = {gold: index for index, gold in enumerate(different)}
    return [
        [different[(place[gold] + ahead) % len(different)] for gold in golds] for ahead in (1, 2)
    ]


def mean(found: Sequence[Any]) -> float:
    values = [value for one in found if (value := getattr(one, "value", None)) is not None]
    return sum(values) / len(values) if values else math.nan
