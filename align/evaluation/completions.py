"""Ready completions scored from a file: no model, no sampling, no torch.

A row has `completion`, a string or chat messages, or a list of several answers to one problem, and
the gold in `solution` or, without that column, in `answer`: bare, boxed or a whole worked solution.
Rows that share a value in `row` answer one problem, and the columns that tell a row's rule (see
`data.judge`) are kept, so the .jsonl of an evaluation can be scored again. `prompt` or `question`
is kept for the reader.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from align.evaluation import results, scoring
from align.files.folder import identity, made
from data import files, judge
from data.rows import DataError, Row, RowError, show
from rewards.core import text_of


def score(path: Path, *, label: str, out: Path) -> dict[str, Any]:
    """Score the file; write OUT/evaluations/LABEL.json and .jsonl as for a model.

    Raises DataError for a file that cannot be read, RowError for the first row without a completion
    or a gold, and where `row` does not tell the problems apart.
    """
    begun = time.perf_counter()
    rows = list(files.read(path))
    if rows and "completion" not in rows[0]:
        raise DataError(f"{path} has no column 'completion'; it has {', '.join(rows[0])}")
    problems = _problems(rows)
    drawn: list[tuple[Any, Any, Row]] = []
    for place, (problem, row) in enumerate(zip(problems, rows, strict=True)):
        drawn += [(problem, each, row) for each in _completions(place, row)]
        _gold(place, row)
        judge.rule_of(place, row)
    made(out / "evaluations")  # before the work
    texts = [text_of(completion) for _, completion, _ in drawn]
    golds = [_gold(0, row) for *_, row in drawn]
    columns = {name: [row.get(name) for *_, row in drawn] for name in judge.TELLING}
    verdicts = scoring.verdicts(texts, golds, columns)
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
                **judge.telling(row),
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


def _problems(rows: list[Row]) -> list[Any]:
    """Which problem each row answers: what it says itself, or one a row.

    Raises RowError where only some rows say it, and where two that say the same differ.
    """
    said = [row.get("row") for row in rows]
    if all(each is None for each in said):
        return list(range(len(rows)))
    asked: dict[Any, Any] = {}
    for place, row in enumerate(rows):
        expected = "the number or name of its problem, as in other rows"
        if isinstance(said[place], int | str):
            own = (_prompt(row), _gold(place, row), judge.telling(row))
            if asked.setdefault(said[place], own) == own:
                continue
            expected = "another number: a row before has it with another prompt or gold"
        raise RowError(row=place, column="row", expected=expected, seen=show(said[place]))
    return said


def _completions(place: int, row: Row) -> list[Any]:
    """The answers in a row: one, or several."""
    value = row.get("completion")
    several = isinstance(value, list) and not all(isinstance(each, dict) for each in value)
    found = value if several else [value]
    if not all(isinstance(each, str) or _is_chat(each) for each in found):
        raise RowError(
            row=place,
            column="completion",
            expected="a string, chat messages with their content, or a list of either",
            seen=show(value),
        )
    return found


def _is_chat(value: Any) -> bool:
    """Whether it is messages, each of which says something."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(each, dict) and isinstance(each.get("content"), str | list) for each in value
        )
    )


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
