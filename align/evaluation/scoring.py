"""Answers scored against golds, without a model and without torch: strictly and leniently.

*strict* wants the right answer in the right form (`<think>…</think><answer>…</answer>` and nothing
else), *lenient* the right answer anywhere. What a method gains in the first alone is format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import rewards
from data.judge import TELLING, Judge, given
from rewards.accuracy import equal
from rewards.core import text_of


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """0 or 1 each: right and in the form, right anywhere, in the form. outcome: how the judging
    ended, as in `rewards.Score`; "unscorable" is a gold that cannot be read.
    """

    strict: int
    lenient: int
    format: int
    outcome: str = "ok"


@dataclass(frozen=True, kw_only=True)
class Votes:
    """What the answers to one problem say: how many are right, how many give each different wrong
    answer, how many none that counts.
    """

    right: int
    wrong: tuple[int, ...]
    silent: int


def verdicts(
    completions: Sequence[Any],
    solutions: Sequence[str | None],
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> list[Verdict]:
    """One verdict a completion (a string, or chat messages whose last answer is read).

    solutions: the golds, bare, boxed or whole worked solutions; one that cannot be read makes
    nothing right, and its outcome says so. columns: further columns of the data set, one entry a
    completion, of which some tell a row's own rule (see `data.judge`). Raises ValueError for lists
    of different lengths, RowError for a countdown without numbers.
    """
    telling = {name: list(values) for name, values in (columns or {}).items() if name in TELLING}
    right = Judge().score(completions, solution=list(solutions), **telling)
    formed = rewards.Format()(completions)
    found = []
    for score, value in zip(right, formed, strict=True):
        lenient, form = int(score.correct == 1.0), int(value == 1.0)
        verdict = Verdict(
            strict=lenient * form, lenient=lenient, format=form, outcome=score.outcome
        )
        found.append(verdict)
    return found


def votes(
    problems: Sequence[Sequence[tuple[Any, Verdict]]], *, strict: bool = False
) -> list[Votes]:
    """The votes on each problem, of its (completion, verdict) pairs.

    Wrong answers are the same where they are mathematically equal; all right ones are. A completion
    without an answer casts no vote; strictly, nor does one that is out of form.
    """
    ballots = []
    for answers in problems:
        cast = [(c, v) for c, v in answers if v.format or not strict]
        wrong = Counter(given(text_of(c)) for c, v in cast if not v.lenient)
        wrong.pop("", None)
        ballots.append((sum(v.lenient for _, v in cast), wrong))
    same = _equal_texts([list(wrong) for _, wrong in ballots])
    counted = []
    for answers, (right, wrong), kind in zip(problems, ballots, same, strict=True):
        groups: Counter[str] = Counter()
        for text, count in wrong.items():
            groups[kind[text]] += count
        silent = len(answers) - right - groups.total()
        counted.append(Votes(right=right, wrong=tuple(sorted(groups.values())), silent=silent))
    return counted


def _equal_texts(problems: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """For each problem, every answer's first equal. Of several lines only the same are equal."""
    pairs = [list(combinations([t for t in texts if "\n" not in t], 2)) for texts in problems]
    flat = list(dict.fromkeys(pair for each in pairs for pair in each))
    agree = {pair for pair, same in zip(flat, equal(flat), strict=True) if same}
    found = []
    for texts, asked in zip(problems, pairs, strict=True):
        first = {text: text for text in texts}
        for one, other in asked:
            if (one, other) in agree and first[one] != first[other]:
                kept, gone = first[one], first[other]
                first = {text: kept if to == gone else to for text, to in first.items()}
        found.append(first)
    return found
