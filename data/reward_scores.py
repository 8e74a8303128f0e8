"""A reward put to the test: what it gives to answers written for given rows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    f"{THINKING}\n```python\n{{solution}}\n```",
)
EMPTY = ("", worked(THINKING, ""))
PATIENCE = 30.0  # seconds for a completion, of a reward of which nobody has said how long it takes


class RewardCheckError(DataError):
    """A reward that takes gold for wrong, or nothing for right, on the rows it is to judge."""


@dataclass(frozen=True, kw_only=True)
class RewardCheck:
    """Shares judged correct among the rows asked; None where not asked.

    rows: how many were asked. gold: of gold answers (1 wanted). empty: of empty ones, shuffled: of
    other rows' golds (0 wanted). offending: index of the first row that went wrong, None where all
    went right. doubt: what looks wrong and may be meant, or nothing.
    """

    rows: int
    gold: float | None
    empty: float | None
    shuffled: float | None
    offending: int | None
    doubt: str = ""


def drawn_rows(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """So many rows by lot, always the same; all where there are fewer."""
    places = random.Random("reward check").sample(range(len(rows)), min(count, len(rows)))
    return [rows[place] for place in sorted(places)]


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What a reward gets to see of these rows."""
    names = dict.fromkeys(
        name for row in rows for name in row if name not in ("prompt", "completion")
    )
    columns = {name: [row.get(name) for row in rows] for name in names}
    return columns | {"prompts": [row.get("prompt") for row in rows]}


def completions_of(rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> list[Any]:
    """Answers in the shape of completions: texts, or messages where the prompts are."""
    return [
        answer if isinstance(row.get("prompt"), str) else assistant(answer)
        for row, answer in zip(rows, answers, strict=True)
    ]


def scores(
    reward: Callable[..., Any],
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[str],
    *,
    ids: Sequence[Sequence[int]] | None = None,
    whole: float | None = None,
) -> list[Any]:
    """What the reward gives each row's answer. ids: the answers' tokens, one a character where they
    are not given. whole: seconds for the call however many rows it has, where nobody has said how
    long the reward takes. Raises RewardCheckError for whatever it raised or did to this process.
    """
    completions = completions_of(rows, answers)
    columns: dict[str, Any] = columns_of(rows)
    columns["completion_ids"] = [[0] * len(each) for each in answers] if ids is None else list(ids)
    judge = reward if hasattr(reward, "score") else rewards.from_trl(reward)
    name = getattr(judge, "name", judge)
    try:
        patience, count = patience_of(judge, unsaid=whole), len(completions)
        with rewards.contained(patience=patience, completions=1 if whole else count):
            found = judge.score(completions, **columns)
    except rewards.ContainedError as error:
        raise RewardCheckError(
            f"on completions such as {answers[0][:60]!r} the reward {name} {error}"
        ) from error
    except Exception as error:  # a user's function may raise anything
        raise RewardCheckError(
            f"the reward {name} {rewards.raised(error)}, for the completion {answers[0][:60]!r}; "
            f"columns given: {', '.join(columns)}"
        ) from error
    if len(found) != len(rows):
        raise RewardCheckError(
            f"the reward {name} gave {len(found)} scores for {len(rows)} completions; it must "
            "return one for each, None where it does not apply"
        )
    return list(found)


def patience_of(judge: Any, *, unsaid: float | None = None) -> float:
    """Seconds for the first completion of a check: what was said for it, else `unsaid`, which is
    `PATIENCE` where it is not given.
    """
    most = PATIENCE if unsaid is None else unsaid
    if inner := getattr(judge, "inner", ()):
        return max(patience_of(each, unsaid=most) for each in inner)
    own = getattr(judge, "patience", most)
    inherited = getattr(type(judge), "patience", None) is rewards.Reward.patience
    if inherited or own == rewards.functions.BatchFunction.patience:
        # What limits each sample by itself has those seconds too.
        return min(own, most + (getattr(judge, "seconds", None) or 0.0))
    return own


def leaves(reward: Any) -> Iterator[Any]:
    """The rewards that it is made of in the end."""
    inner = getattr(reward, "inner", ())
    if not inner:
        yield reward
    for one in inner:
        yield from leaves(one)


def is_ours(leaf: Any) -> bool:
    """Whether it is a class of this project's; what it calls may be a user's all the same."""
    return type(leaf).__module__.partition(".")[0] in ("rewards", "align", "data")


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
