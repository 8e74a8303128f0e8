"""Do the gold answers belong to their prompts, as far as the rows themselves tell?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from data.contamination import prompt_texts
from data.reward_scores import RewardCheckError
from data.rows import nth
from rewards.core import text_of
from rewards.extract import answer_of

ROWS = 5_000  # that are looked at
FEW = 8  # rows below which nothing is said
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
    in another order.
    """
    pairs = [(own, _gold(row)) for row in rows if (own := _own(row))]
    golds = Counter(gold for _, gold in pairs)
    if len(pairs) < FEW or len(golds) < 3:
        return
    same = sum(own == gold for own, gold in pairs)
    both = (Counter(own for own, _ in pairs) & golds).total()
    if both >= 0.95 * len(pairs) and same <= 0.5 * both:
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
    several = {prompt: found for prompt, found in golds.items() if len(found) > 1}
    if several:
        prompt, found = next(iter(several.items()))
        yield (
            f"{len(several)} prompts stand there with different golds, such as {prompt[:60]!r} "
            f"with {' and '.join(map(repr, sorted(found)[:3]))}: one answer is right and wrong"
        )
