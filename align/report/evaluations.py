"""Before and after: each evaluation's shares, one row a model, in the order the recipe trains.

Models from outside the run come first. A share is whatever a summary counts: the three scores of
every evaluation by name, any other (what an outside classifier says, for one) by its own.
`comparisons.py` puts two evaluations side by side.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from align.report import shares
from align.report.curves import number
from align.report.folder import Row, Run, read_json, read_rows
from align.report.shares import counted
from align.statistics import Proportion

METRICS = ("strict", "lenient", "format")
MEANING = {
    "strict": "Strict counts an answer only in the asked form.",
    "lenient": "Lenient counts a right answer wherever it stands.",
    "classifier": "Classifier: share that a classifier outside the training calls positive.",
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluations/<label>.json with its rows; `stage` made the model, None for an outside one.

    `proportions` holds what the summary counts, by name.
    """

    label: str
    data: str
    n: int | None
    temperature: float | None
    length: float | None
    proportions: dict[str, Proportion]
    rows: list[Row] = field(repr=False)
    stage: str | None
    order: int


def read_evaluations(run: Run) -> tuple[list[Evaluation], list[str]]:
    """All evaluations by data set, then in training order, and notes on what was unreadable."""
    found, notes = [], []
    stages = [stage.name for stage in run.stages]
    for path in sorted((run.out / "evaluations").glob("*.json")):
        summary, summary_notes = read_json(path)
        rows, row_notes = read_rows(path.with_suffix(".jsonl"))
        notes += summary_notes + row_notes
        if summary:
            found.append(_evaluation(path.stem, summary, rows, stages))
    data = list(dict.fromkeys(e.data for e in sorted(found, key=lambda e: (e.order, e.label))))
    found.sort(key=lambda e: (data.index(e.data), e.order, e.label))
    return found, notes


def _evaluation(stem: str, summary: Row, rows: list[Row], stages: list[str]) -> Evaluation:
    label = str(summary.get("label", stem))
    order = _order(label, str(summary.get("model", "")), stages)
    return Evaluation(
        label=label,
        data=str(summary.get("data", "")),
        n=summary.get("n"),
        temperature=number(summary.get("temperature")),
        length=summary.get("length"),
        proportions=_proportions(summary),
        rows=rows,
        stage=stages[order] if order >= 0 else None,
        order=order,
    )


def _proportions(summary: Row) -> dict[str, Proportion]:
    counts = {name: value for name, value in summary.items() if isinstance(value, dict)}
    found = {
        name: counted(value.get("successes"), value.get("n")) for name, value in counts.items()
    }
    return {name: share for name, share in found.items() if share is not None}


def tables(evaluations: list[Evaluation]) -> list[tuple[list[str], list[Evaluation]]]:
    """Columns and rows: data sets that are scored alike share a table, so that none has gaps.

    The usual three scores come first.
    """
    columns: dict[str, list[str]] = {}
    for data in dict.fromkeys(e.data for e in evaluations):
        named = dict.fromkeys(name for e in evaluations if e.data == data for name in e.proportions)
        columns[data] = [name for name in METRICS if name in named]
        columns[data] += [name for name in named if name not in METRICS]
    distinct = {tuple(names): names for names in columns.values()}
    return [
        (names, [e for e in evaluations if columns[e.data] == names]) for names in distinct.values()
    ]


def heading(metric: str) -> str:
    """A share's name as a column's."""
    return metric.replace("_", " ").capitalize()


def legend(evaluations: list[Evaluation]) -> list[str]:
    """What the columns mean, in sentences, for those that the tables have."""
    named = {name for e in evaluations for name in e.proportions}
    return [sentence for name, sentence in MEANING.items() if name in named]


def _order(label: str, model: str, stages: list[str]) -> int:
    """Which stage made the model: named in its label, or in its path as <stage>/model; else −1."""
    words = re.split(r"[^a-z0-9]+", label.lower())
    parts = Path(model).parts
    made = [part for part, inner in pairwise(parts) if inner in ("model", "checkpoints")]
    for position, stage in reversed(list(enumerate(stages))):
        if stage == label or stage.lower() in words or stage in made:
            return position
    return -1


def lines(evaluations: list[Evaluation]) -> list[str]:
    """The tables as plain text, for the terminal."""
    return [line for names, rows in tables(evaluations) for line in _lines(names, rows)]


def _lines(names: list[str], rows: list[Evaluation]) -> list[str]:
    cells = [["model", "data", "n", *(f"{name} [95 %]" for name in names)]]
    cells += [
        [e.label, e.data, str(e.n), *(shares.percent(e.proportions.get(name)) for name in names)]
        for e in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return [text[0], "  ".join("-" * width for width in widths), *text[1:]]
