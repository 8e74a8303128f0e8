"""The answers of evaluations for the page: each problem with what every evaluated model made of it.

Problems are matched by the data set's row and prompt, as the paired tests match them.
"""

from itertools import groupby

from align.report.evaluations import Evaluation, asked
from align.report.folder import Row
from align.report.samples import clip, spaced

SCORES = ("strict", "lenient", "format", "length")
MOST_ANSWERS = 60_000  # of one data set, all models together


def answers(evaluations: list[Evaluation]) -> tuple[list[Row], list[str]]:
    """A set for each data set that two models or more have answered, and notes on what is cut.

    {"data", "models": [label], "start": the cold start's index, "problems": [{"row", "prompt",
    "solution", "answers": [[answer, …] for each model]}]}
    """
    found, notes = [], []
    for data, same in groupby(evaluations, key=asked):
        group = [e for e in same if any("completion" in row for row in e.rows)]
        if len(group) < 2:
            continue
        problems = _problems(group)
        total = sum(len(a) for p in problems for a in p["answers"])
        fitting = max(1, len(problems) * MOST_ANSWERS // total) if total else 0
        if fitting < len(problems):
            notes.append(
                f"Of {len(problems):,} problems of {data} {fitting:,}, evenly spaced, are compared "
                f"text by text; all are in evaluations/."
            )
            problems = [problems[i] for i in spaced(len(problems), fitting)]
        models = [e.label for e in group]
        first = next((i for i, e in enumerate(group) if e.stage is not None), 0)
        found.append({"data": data, "models": models, "start": first, "problems": problems})
    return found, notes


def _problems(group: list[Evaluation]) -> list[Row]:
    found: dict[tuple[str, str], Row] = {}
    for place, evaluation in enumerate(group):
        for row in evaluation.rows:
            prompt = row.get("prompt")
            key = (repr(row.get("row")), prompt if isinstance(prompt, str) else repr(prompt))
            problem = found.setdefault(
                key,
                {
                    "row": row.get("row"),
                    "prompt": clip(prompt),
                    "solution": None if row.get("solution") is None else clip(row["solution"]),
                    "answers": [[] for _ in group],
                },
            )
            scores = {name: row[name] for name in SCORES if row.get(name) is not None}
            problem["answers"][place].append({"completion": clip(row.get("completion"))} | scores)
    return list(found.values())
