"""All stages × all evaluations: one table, each figure with its interval and its difference.

A row is a stage, or a model from outside the run; a column an evaluation. A stage that trains no
policy (a reward model, rejection sampling) has a line of its own kind instead.
"""

from dataclasses import dataclass

from align.evaluation.statistics import Paired, Proportion
from align.report import shares
from align.report.comparisons import Change
from align.report.evaluations import Estimate, Evaluation, asked
from align.report.folder import Run
from align.report.heldout import Heldout
from align.report.kept import Kept


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One evaluation in its cell; `label` only where it is not the row's name.

    estimates: of strict answers and the largest k; all of them have a table of their own.
    """

    label: str
    n: str
    shares: dict[str, Proportion]
    estimates: dict[str, Estimate]
    contamination: str
    against: str
    tests: dict[str, Paired]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row: a cell for each column, or `other`, what a stage without an evaluation has instead."""

    name: str
    number: int  # the stage's place on the page, 0 for an outside model
    kind: str
    cells: list[list[Entry]]
    other: str


@dataclass(frozen=True, kw_only=True)
class Overview:
    columns: list[str]
    lines: list[Line]
    unhelpful: list[str]  # a sentence for each stage that did not help


def overview(
    run: Run,
    evaluations: list[Evaluation],
    changes: list[Change],
    heldout: dict[str, Heldout | None],
    kept: dict[str, Kept | None],
) -> Overview:
    columns = list(dict.fromkeys(asked(e) for e in evaluations))
    tested = {id(change.after): change for change in changes if not change.common}
    outside = list(dict.fromkeys(e.label for e in evaluations if e.stage is None))
    names = [(0, name) for name in outside]
    names += list(enumerate([stage.name for stage in run.stages], start=1))
    kinds = {stage.name: stage.kind for stage in run.stages}
    lines = []
    for number, name in names:
        own = [e for e in evaluations if (e.stage or e.label) == name]
        cells = [[_entry(e, name, tested) for e in own if asked(e) == c] for c in columns]
        lines.append(
            Line(
                name=name,
                number=number,
                kind=kinds.get(name, ""),
                cells=cells if own else [],
                other="" if own else _other(heldout.get(name), kept.get(name)),
            )
        )
    return Overview(columns=columns, lines=lines, unhelpful=unhelpful(changes))


def _entry(evaluation: Evaluation, name: str, tested: dict[int, Change]) -> Entry:
    change = tested.get(id(evaluation))
    usual = {m: s for m, s in evaluation.proportions.items() if m in shares.RIGHT}
    n = f"{evaluation.n:,}" if isinstance(evaluation.n, int) else "–"
    times = f" × {evaluation.samples}" if evaluation.samples > 1 else ""
    return Entry(
        label="" if evaluation.label == name else evaluation.label,
        n=n + times,
        shares=usual or evaluation.proportions,
        estimates={
            f"{family}@{k}": by_k[k]
            for (family, score), by_k in evaluation.estimates.items()
            if score == "strict" and (k := max(by_k)) > 1
        },
        contamination=evaluation.contamination,
        against=change.before.label if change else "",
        tests=change.tests if change else {},
    )


def _other(heldout: Heldout | None, kept: Kept | None) -> str:
    """What a stage has to show instead of an evaluation."""
    if heldout is not None:
        share = heldout.accuracy
        return (
            f"{100 * share.mean:.1f} % of {share.n:,} held-out pairs ordered right "
            f"({100 * share.low:.1f} to {100 * share.high:.1f} %): {heldout.verdict}"
        )
    if kept is not None:
        return kept.sentence
    return "not evaluated"


def unhelpful(changes: list[Change]) -> list[str]:
    """Every stage that is not significantly better than its parent, with the figures of it."""
    said = []
    for change in changes:
        if change.common or change.after.stage is None:
            continue
        metric = next((m for m in shares.RIGHT if m in change.tests), None)
        test = change.tests.get(metric or "")
        if test is None or metric is None or shares.verdict(test, metric).endswith("better"):
            continue
        before, after = change.before, change.after
        now, then = (f"{100 * e.proportions[metric].mean:.1f} %" for e in (after, before))
        said.append(
            f"The stage {after.label} did not help: {now} of {asked(change.after)} right "
            f"({metric}), {before.label} {then}: {shares.verdict(test, metric)} "
            f"({shares.points(test)}, 95 % interval {shares.interval(test)}, "
            f"{shares.p_value(test)}, {test.n:,} problems)."
        )
    return said
