"""Accuracy by the rule of the data set that a row comes from, told by the row's columns.

| columns | rule |
|---|---|
| `nums`, `target` | countdown: an expression of these numbers that gives the target |
| `task`, `metadata`, a gold that is no number | the reasoning-gym task's own scorer |
| else | `rewards.Accuracy`: mathematically equal to `solution` |

A countdown target is a number, so accuracy alone would accept the bare target for the expression.
Some scorers of reasoning-gym read an answer with `eval`, which never sees a model's text here:
those of lists are given Python's literals (`gym_scorer`), those of formulas are not asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from data import countdown
from data.equations import number
from rewards import Accuracy, PerSample, Reward, Score
from rewards.boxes import last_tag
from rewards.core import text_of
from rewards.extract import answer_of

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
    `Accuracy`. The values of a partly right answer are 0.0 too.
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
        rules = [_rule(row) for row in _rows(columns, len(completions))]
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
    """The answer that a text gives, as it stands there: a board of several lines stays one."""
    return last_tag(text)[1].strip() or answer_of(text)


Rule = Callable[[Sequence[str], dict[str, list[Any]]], list[Score]]


def _rows(columns: dict[str, list[Any]], count: int) -> list[dict[str, Any]]:
    """The columns that tell the rule, row by row."""
    telling = ("nums", "target", "task", "metadata", "solution")
    values = [columns.get(name) or [None] * count for name in telling]
    return [dict(zip(telling, row, strict=True)) for row in zip(*values, strict=True)]


def _rule(row: dict[str, Any]) -> Rule | None:
    """None stands for `Accuracy`."""
    if row["nums"] is not None and row["target"] is not None:
        return _countdown
    if not _of_gym(row):
        return None
    if row["task"] in _EXPRESSIONS:
        return _every_number
    plain = row["solution"] is None or number(row["solution"]) is not None
    return None if plain or row["task"] in _NOT_ASKED else _gym


def _of_gym(row: dict[str, Any]) -> bool:
    """Whether the columns are reasoning-gym's: others may have some of these names."""
    try:
        metadata = json.loads(row["metadata"])
    except (TypeError, ValueError):
        return False
    return isinstance(metadata, dict) and metadata.get("source_dataset") == row["task"] is not None


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
