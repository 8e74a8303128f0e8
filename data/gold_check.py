"""Do the gold answers belong to their prompts, as far as the rows themselves tell?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import sqrt
from typing import Any

from data.contamination import prompt_texts
from data.reward_scores import RewardCheckError
from data.rows import nth
from rewards.accuracy import equal
from rewards.core import text_of
from rewards.extract import answer_of

ROWS = 5_000  # that are looked at
FEW = 8  # rows, or golds that differ, below which nothing is said
PAIRS = 48  # of golds that are held against each other by value
# What a missing value turns into on its way through a table.
NOTHING = {
    "nan",
    "null",
    "n/a",
    "#n/a",
    "na",
    "<na>",
    "nat",
    "none",
    "nil",
    "undefined",
    "tbd",
    "todo",
    "?",
    "-",
}


def check_golds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be doubted of the column solution. Raises RewardCheckError where most golds
    stand for nothing, and where they are those of other rows.
    """
    some = [row for row in islice(rows, ROWS) if isinstance(row.get("solution"), str)]
    if len(some) < FEW:
        return []
    _of_other_rows(some)
    return [*_nothing(some), *_contradicting(some)]


def _of_other_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """The answers that the rows' own completions end in, against their golds: the same ones, and
    in another order. Few different golds, as of multiple choice, are as frequent in any answers,
    so that an earlier model's look like them.
    """
    pairs = [(own, _gold(row)) for row in rows if (own := _own(row))]
    golds = Counter(gold for _, gold in pairs)
    if len(golds) < FEW or max(golds.values()) >= 0.25 * len(pairs):
        return
    owns = Counter(own for own, _ in pairs)
    same = sum(own == gold for own, gold in pairs)
    chance = sum(owns[gold] * times for gold, times in golds.items()) / len(pairs)
    if (owns & golds).total() >= 0.95 * len(pairs) and same <= chance + 2 * max(1, sqrt(chance)):
        own, gold = next(pair for pair in pairs if pair[0] != pair[1])
        raise RewardCheckError(
            f"the golds (column 'solution') are those of other rows: the completions of "
            f"{len(pairs)} rows end in the same answers, and only {same} in their own row's, such "
            f"as {own!r} where the gold is {gold!r}. The column was shifted or shuffled"
        )


def _own(row: Mapping[str, Any]) -> str:
    """The answer that the row's own completion ends in; empty where it has none."""
    worked = row.get("completion") or (row.get("messages") or [])[-1:]
    return answer_of(text_of(worked)).strip() if worked else ""


def _gold(row: Mapping[str, Any]) -> str:
    return (answer_of(row["solution"]) or row["solution"]).strip()


def _nothing(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    found = [i for i, row in enumerate(rows) if row["solution"].strip().lower() in NOTHING]
    others = [row for row in rows if row["solution"].strip().lower() not in NOTHING]
    words = sum(not any(map(str.isdigit, row["solution"])) for row in others)
    if not found or words > 0.5 * len(others):  # "none" may be the answer among words
        return
    said = (
        f"{nth(found[0])}: the gold {rows[found[0]]['solution']!r} stands for no answer "
        f"({len(found)} of {len(rows)} rows), and that word would be learnt; drop such rows"
    )
    if len(found) > 0.5 * len(rows):
        raise RewardCheckError(said)
    yield said


def _contradicting(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    golds: dict[str, set[str]] = defaultdict(set)
    for prompt, row in zip(prompt_texts(rows), rows, strict=True):
        golds[prompt].add(_gold(row))
    texts = {prompt: sorted(found) for prompt, found in golds.items() if len(found) > 1}
    pairs = [(prompt, (one, other)) for prompt, (one, *rest) in texts.items() for other in rest]
    pairs = pairs[:PAIRS]
    verdicts = equal([pair for _, pair in pairs])
    apart = {prompt: pair for (prompt, pair), same in zip(pairs, verdicts, strict=True) if not same}
    if apart:
        prompt, pair = next(iter(apart.items()))
        yield (
            f"{len(apart)} prompts stand there with different golds, such as {prompt[:60]!r} "
            f"with {' and '.join(map(repr, pair))}: one answer is right and wrong"
        )
