"""Ready completions scored from a file: no model, no sampling, no torch.

A row has `completion`, a string or chat messages, or a list of several answers to one problem, and
the gold in `solution` or, without that column, in `answer`: bare, boxed or a whole worked solution.
Rows that share a value in `row` answer one problem, so the .jsonl of an evaluation can be scored
again. `prompt` or `question` is kept for the reader.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from align import results, scoring
from align.folder import identity
from data import files
from data.rows import Row, RowError, show
from rewards.core import text_of

# What the answers file says itself, and what would be taken for a rule's column.
_OWN = ("row", "sample", "prompt", "question", "completion", "solution", "answer")


def score(path: Path, *, label: str, out: Path) -> dict[str, Any]:
    """Score the file; write OUT/evaluations/LABEL.json and .jsonl as for a model.

    Raises DataError for a file that cannot be read, RowError for the first row without a completion
    or a gold.
    """
    begun = time.perf_counter()
    drawn: list[tuple[Any, Any, Row]] = []
    for place, row in enumerate(files.read(path)):
        problem = row["row"] if isinstance(row.get("row"), int | str) else place
        drawn += [(problem, each, row) for each in _completions(place, row)]
        _gold(place, row)
    texts = [text_of(completion) for _, completion, _ in drawn]
    golds = [_gold(0, row) for *_, row in drawn]
    names = dict.fromkeys(name for *_, row in drawn for name in row if name not in _OWN)
    columns = {name: [row.get(name) for *_, row in drawn] for name in names}
    verdicts = scoring.verdicts(texts, golds, **columns)
    seen: Counter[Any] = Counter()
    answers = []
    for (problem, _, row), text, gold, verdict in zip(drawn, texts, golds, verdicts, strict=True):
        answers.append(
            {
                "row": problem,
                "sample": seen[problem],
                "prompt": _prompt(row),
                "solution": gold,
                "completion": text,
                **vars(verdict),
            }
        )
        seen[problem] += 1
    summary = {
        "label": label,
        "evaluation": "evaluation",
        "model": None,
        "completions": {"path": str(path), "hash": identity(str(path))},
        "data": path.stem,
        "temperature": None,
        **results.figures(answers),
        "contamination": None,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    results.write(out / "evaluations" / f"{label}.json", summary, answers)
    return summary


def _completions(place: int, row: Row) -> list[Any]:
    """The answers in a row: one, or several."""
    value = row.get("completion")
    several = isinstance(value, list) and not all(isinstance(each, dict) for each in value)
    found = value if several else [value]
    for each in found:
        messages = isinstance(each, list) and all(isinstance(part, dict) for part in each)
        if not isinstance(each, str) and not messages:
            raise RowError(
                row=place,
                column="completion",
                expected="a string, chat messages, or a list of either",
                seen=show(value),
            )
    return found


def _gold(place: int, row: Row) -> str:
    gold = row.get("answer") if row.get("solution") is None else row["solution"]
    if gold is None:
        expected = "the right answer, here or in a column 'answer'"
        raise RowError(row=place, column="solution", expected=expected, seen="none")
    return str(gold)


def _prompt(row: Row) -> str:
    prompt = row.get("question") if row.get("prompt") is None else row["prompt"]
    if isinstance(prompt, list):
        return str(prompt[-1]["content"]) if prompt else ""
    return "" if prompt is None else str(prompt)
