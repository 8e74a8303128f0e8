"""Before and after: each evaluation's proportions, paired tests between neighbours on one data set.

Evaluations are ordered as the recipe trains: models from outside the run first, then by the stage
that made them. Two are paired row by row, by the data set's row index, and only where both saw the
same prompt; the interval of each alone says nothing about that pairing, hence both.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from align import statistics
from align.report.folder import Row, Run, read_json, read_rows, read_run
from align.statistics import Paired, Proportion

METRICS = ("strict", "lenient", "format")
TESTED = ("strict", "lenient")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluations/<label>.json with its rows; a metric it does not have is None."""

    label: str
    data: str
    n: int | None
    temperature: float | None
    length: float | None
    proportions: dict[str, Proportion | None]
    rows: list[Row] = field(repr=False)
    order: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """Paired tests of two evaluations that share `n` rows; a metric not in both is left out."""

    before: str
    after: str
    data: str
    n: int
    tests: dict[str, Paired]


def read_evaluations(run: Run) -> tuple[list[Evaluation], list[str]]:
    """All evaluations by data set, then in training order, and notes on what was unreadable."""
    found, notes = [], []
    for path in sorted((run.out / "evaluations").glob("*.json")):
        summary, summary_notes = read_json(path)
        rows, row_notes = read_rows(path.with_suffix(".jsonl"))
        notes += summary_notes + row_notes
        if summary:
            found.append(
                _evaluation(path.stem, summary, rows, [stage.name for stage in run.stages])
            )
    data = list(dict.fromkeys(e.data for e in sorted(found, key=lambda e: (e.order, e.label))))
    found.sort(key=lambda e: (data.index(e.data), e.order, e.label))
    return found, notes


def _evaluation(stem: str, summary: Row, rows: list[Row], stages: list[str]) -> Evaluation:
    label = str(summary.get("label", stem))
    return Evaluation(
        label=label,
        data=str(summary.get("data", "")),
        n=summary.get("n"),
        temperature=summary.get("temperature"),
        length=summary.get("length"),
        proportions={name: _proportion(summary.get(name)) for name in METRICS},
        rows=rows,
        order=_order(label, str(summary.get("model", "")), stages),
    )


def _proportion(counts: object) -> Proportion | None:
    if not isinstance(counts, dict) or not counts.get("n") or counts.get("successes") is None:
        return None
    return statistics.proportion(int(counts["successes"]), int(counts["n"]))


def _order(label: str, model: str, stages: list[str]) -> int:
    """Which stage made the model: named in its label, or in its path as <stage>/model; else −1."""
    words = re.split(r"[^a-z0-9]+", label.lower())
    parts = Path(model).parts
    made = [part for part, inner in pairwise(parts) if inner in ("model", "checkpoints")]
    for position, stage in reversed(list(enumerate(stages))):
        if stage == label or stage.lower() in words or stage in made:
            return position
    return -1


def changes(evaluations: list[Evaluation]) -> list[Change]:
    """Paired tests of each evaluation and the next on the same data, where they share rows."""
    found = [
        _change(before, after)
        for before, after in pairwise(evaluations)
        if before.data == after.data
    ]
    return [change for change in found if change.tests]


def _change(before: Evaluation, after: Evaluation) -> Change:
    earlier = {row.get("row"): row for row in before.rows}
    pairs = [
        (earlier[row.get("row")], row)
        for row in after.rows
        if row.get("row") in earlier and row.get("prompt") == earlier[row["row"]].get("prompt")
    ]
    tests = {}
    for metric in TESTED:
        verdicts = [(b[metric], a[metric]) for b, a in pairs if _judged(b, a, metric)]
        if verdicts:
            tests[metric] = statistics.paired(*zip(*verdicts, strict=True))
    return Change(
        before=before.label, after=after.label, data=after.data, n=len(pairs), tests=tests
    )


def _judged(before: Row, after: Row, metric: str) -> bool:
    return before.get(metric) in (0, 1) and after.get(metric) in (0, 1)


def percent(share: Proportion | None) -> str:
    """`57.2 % [52.8, 61.5]`, or a dash."""
    if share is None:
        return "–"
    return f"{100 * share.mean:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def points(test: Paired) -> str:
    """`+15.2 points`, with a real minus sign."""
    return f"{100 * test.difference:+.1f} points".replace("-", "−")


def p_value(test: Paired) -> str:
    """`p = 0.034`; very small ones keep their order of magnitude."""
    return f"p\u00a0=\u00a0{test.p_value:.2g}".replace("-", "−")


def table(out: Path) -> str:
    """The before/after table of a run folder as plain text, with the paired tests below it."""
    evaluations, _ = read_evaluations(read_run(out))
    if not evaluations:
        return f"No evaluations in {out / 'evaluations'} yet."
    lines = [["model", "data", "n", *(f"{name} [95 %]" for name in METRICS)]]
    lines += [
        [e.label, e.data, str(e.n), *(percent(e.proportions[name]) for name in METRICS)]
        for e in evaluations
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    for change in changes(evaluations):
        for metric, test in change.tests.items():
            text.append(
                f"{change.before} → {change.after} ({change.data}, {metric}): {points(test)}, "
                f"{test.better} better, {test.worse} worse, {p_value(test)}"
            )
    return "\n".join(text)
