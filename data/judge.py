"""Accuracy by the rule of the data set that a row comes from, told by the row's columns.

| columns | rule |
|---|---|
| `nums`, `target` | countdown: an expression of these numbers that gives the target |
| `task`, `metadata`, a gold that is no number | the reasoning-gym task's own scorer |
| of the task bitwise_arithmetic | the same integer, in whatever base: `0x1f` is `31` |
| else | `rewards.Accuracy`: mathematically equal to `solution` |

A countdown target is a number, so accuracy alone would accept the bare target for the expression.
Some scorers of reasoning-gym call `eval`, which never sees a text here, be it a model's or a data
file's: those of lists are given Python's literals (`gym_scorer`), those of formulas are not asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from data import countdown
from data.equations import number
from data.rows import RowError, show
from rewards import Accuracy, PerSample, Reward, Score
from rewards.boxes import last_boxes, last_tag
from rewards.core import text_of
from rewards.extract import answer_of

TELLING = ("nums", "target", "task", "metadata")
"""The columns that tell a row's rule, beside its `solution`."""

# Their scorers hand the answer to sympy's parser, which is Python's `eval`.
_EXPRESSIONS = ("countdown", "puzzle24")
_NOT_ASKED = (
    "simple_integration",
    "intermediate_integration",
    "polynomial_multiplication",
    "game_of_life_halting",  # whose scorer takes any answer for True
)


@dataclass(frozen=True, kw_only=True)
class Judge(Reward):
    """1.0 where the answer is right by its row's own rule, 0.0 where not; `unparseable` as in
    `Accuracy`. The values of a partly right answer are 0.0 too. Raises RowError, counting the
    completions, as `rule_of`.
    """

    name: ClassVar[str] = "accuracy"
    needs: ClassVar[tuple[str, ...]] = ("solution",)
    unparseable: float = 0.5

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        columns = {
            name: list(values)
            for name, values in columns.items()
            if isinstance(values, Sequence) and len(values) == len(completions)
        }
        rules = [
            rule_of(place, {name: values[place] for name, values in columns.items()})
            for place in range(len(completions))
        ]
        scores: dict[int, Score] = {}
        for rule in dict.fromkeys(rules):
            places = [place for place, each in enumerate(rules) if each is rule]
            part = {name: [values[place] for place in places] for name, values in columns.items()}
            texts = [text_of(completions[place]) for place in places]
            accuracy = Accuracy(unparseable=self.unparseable)
            found = accuracy.score(texts, **part) if rule is None else rule(texts, part)
            scores.update(zip(places, found, strict=True))
        return [scores[place] for place in range(len(completions))]


def given(text: str) -> str:
    """The answer that a text gives, as it stands there: a board of several lines stays one. Of a
    box in the tag it is the content.
    """
    tagged = last_tag(text)[1].strip()
    return last_boxes(tagged)[1] or tagged or answer_of(text)


def telling(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that tell its rule, where it has them."""
    return {name: row[name] for name in TELLING if row.get(name) is not None}


Rule = Callable[[Sequence[str], dict[str, list[Any]]], list[Score]]


def rule_of(place: int, row: Mapping[str, Any]) -> Rule | None:
    """The rule of a row; None stands for `Accuracy`.

    Raises RowError, naming the row `place`, where the numbers of a countdown are none.
    """
    nums, target = row.get("nums"), row.get("target")
    if nums is not None and target is not None:
        _check(place, "nums", nums, nums)
        _check(place, "target", target, [target])
        return _countdown
    if not _of_gym(row):
        return None
    if row["task"] in _EXPRESSIONS:
        asked = json.loads(row["metadata"])
        _check(place, "metadata", asked, asked.get("numbers"))
        _check(place, "metadata", asked, [asked.get("target", 24)])
        return _every_number
    gold = row.get("solution")
    if row["task"] == "bitwise_arithmetic":
        return _same_integer if _integer(gold) is not None else None
    plain = gold is None or number(gold) is not None
    return None if plain or row["task"] in _NOT_ASKED else _gym


def _check(place: int, column: str, value: Any, numbers: Any) -> None:
    if not isinstance(numbers, (list, tuple)) or not all(
        isinstance(each, (int, float)) and math.isfinite(each) for each in numbers
    ):
        expected = "the numbers of a countdown, nums=[3, 8, 3, 8] and target=24"
        raise RowError(row=place, column=column, expected=expected, seen=show(value))


def _of_gym(row: Mapping[str, Any]) -> bool:
    """Whether the columns are reasoning-gym's: others may have some of these names."""
    try:
        metadata = json.loads(row.get("metadata"))
    except (TypeError, ValueError):
        return False
    source = metadata.get("source_dataset") if isinstance(metadata, dict) else None
    return isinstance(source, str) and source == row.get("task")


def _countdown(texts: Sequence[str], columns: dict[str, list[Any]]) -> list[Score]:
    asked = zip(texts, columns["nums"], columns["target"], strict=True)
    return [_score(countdown.solves(given(t), numbers=n, target=goal)) for t, n, goal in asked]


def _every_number(texts: Sequence[str], columns: dict[str, list[Any]]) -> list[Score]:
    scores = []
    for text, metadata in zip(texts, columns["metadata"], strict=True):
        asked = json.loads(metadata)
        goal = asked.get("target", 24)
        right = countdown.solves(given(text), numbers=asked["numbers"], target=goal, every=True)
        scores.append(_score(right))
    return scores


def _same_integer(texts: Sequence[str], columns: dict[str, list[Any]]) -> list[Score]:
    pairs = zip(texts, columns["solution"], strict=True)
    return [_score(_integer(given(text)) == _integer(gold)) for text, gold in pairs]


def _integer(text: object) -> int | None:
    """In Python's spelling, whose base its prefix tells; None for what is none."""
    try:
        return int(str(text), 0)
    except ValueError:
        return None


def _gym(texts: Sequence[str], columns: dict[str, list[Any]]) -> list[Score]:
    """Each answer in a worker that can be killed: the scorers are not made for hostile ones."""
    from data import gym_scorer

    names = ("task", "metadata", "solution")
    scores = PerSample(fn=gym_scorer.score).score(
        [given(text) for text in texts], **{name: columns[name] for name in names}
    )
    return [_score(score.value >= 1.0, outcome=score.outcome) for score in scores]


def _score(right: bool, **more: Any) -> Score:
    value = float(right)
    return Score(value=value, correct=value, parts={Judge.name: value}, **more)
