"""Before and after: each evaluation's shares, one row a model, in the order the recipe trains.

Models from outside the run come first. A share is whatever a summary counts: the three scores of
every evaluation by name, any other (what an outside classifier says, for one) by its own.
`comparisons.py` puts two evaluations side by side. Where each problem was answered several times, a
summary also estimates pass@k, maj@k and the mean, with intervals over problems.
"""

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from align.evaluation.statistics import Proportion
from align.report import shares
from align.report.curves import number
from align.report.folder import Row, Run, read_json, read_rows
from align.report.shares import counted

DEFAULT = "evaluation"  # the name of a recipe's only evaluation
METRICS = ("strict", "lenient", "format")
SEVERAL = ("pass", "maj")
MEANING = {
    "strict": "Strict counts an answer only in the asked form.",
    "lenient": "Lenient counts a right answer wherever it stands.",
    "classifier": "Classifier: share that a classifier outside the training calls positive.",
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over problems with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluations/<label>.json with its rows; `stage` made the model, None for an outside one.

    `proportions` holds what the summary counts, by name; `estimates` what it says of several
    answers a problem, by (`pass` or `maj`, score) and k; `contamination` a sentence where training
    saw some of the prompts.
    """

    label: str
    name: str
    data: str
    n: int | None
    temperature: float | None
    length: float | None
    proportions: dict[str, Proportion]
    estimates: dict[tuple[str, str], dict[int, Estimate]]
    contamination: str
    samples: int
    rows: list[Row] = field(repr=False)
    stage: str | None
    order: int


def read_evaluations(run: Run) -> tuple[list[Evaluation], list[str]]:
    """All evaluations by what was asked, then in training order; notes on what was unreadable, and
    on results of weights that a stage has since replaced, which are left out.
    """
    found, notes = [], []
    stages = [stage.name for stage in run.stages]
    for path in sorted((run.out / "evaluations").glob("*.json")):
        summary, summary_notes = read_json(path)
        rows, row_notes = read_rows(path.with_suffix(".jsonl"))
        notes += summary_notes + row_notes
        if replaced := _replaced(summary, run):
            notes.append(
                f"evaluations/{path.name} is of weights that {replaced} has no more and was left "
                f"out; evaluate again."
            )
        elif summary:
            found.append(_evaluation(path.stem, summary, rows, stages))
    found.sort(key=lambda e: (e.order, e.name != DEFAULT, e.name, e.label))
    asked = list(dict.fromkeys((e.data, e.name) for e in found))
    found.sort(key=lambda e: asked.index((e.data, e.name)))
    return found, notes


def _replaced(summary: Row, run: Run) -> str:
    """The stage that has run again since its model was evaluated; empty where none has."""
    weights, model = summary.get("weights"), Path(str(summary.get("model", "")))
    for stage in run.stages:
        done, _ = read_json(stage.path / "done.json")
        here = model.parts[-3:] == (run.out.resolve().name, stage.name, "model")
        now = done.get("weights")
        # Of a student made of some layers the text ends in the weights of the whole.
        if here and isinstance(weights, str) and isinstance(now, str) and not weights.endswith(now):
            return stage.name
    return ""


def _evaluation(stem: str, summary: Row, rows: list[Row], stages: list[str]) -> Evaluation:
    label = str(summary.get("label", stem))
    order = _order(label, str(summary.get("model", "")), stages)
    return Evaluation(
        label=label,
        name=str(summary.get("evaluation", DEFAULT)),
        data=str(summary.get("data", "")),
        n=summary.get("n"),
        temperature=number(summary.get("temperature")),
        length=summary.get("length"),
        proportions=_proportions(summary),
        estimates=_estimates(summary),
        contamination=_contamination(summary.get("contamination")),
        samples=_samples(summary),
        rows=rows,
        stage=stages[order] if order >= 0 else None,
        order=order,
    )


def _samples(summary: Row) -> int:
    samples = summary.get("samples")
    return samples if isinstance(samples, int) and samples > 1 else 1


def _proportions(summary: Row) -> dict[str, Proportion]:
    """What is counted. Several answers to a problem are no independent trials: their interval is
    the summary's own, for that made from the counts would be too narrow.
    """
    counts = {name: value for name, value in summary.items() if isinstance(value, dict)}
    found = {}
    for name, value in counts.items():
        share = counted(value.get("successes"), value.get("n"))
        if share is None:
            continue
        own = _estimate(value) if _samples(summary) > 1 else None
        found[name] = replace(share, low=own.low, high=own.high) if own else share
    return found


def _estimates(summary: Row) -> dict[tuple[str, str], dict[int, Estimate]]:
    """pass@k and maj@k: of each score, or of the strict one where no score is named."""
    found = {}
    for family in SEVERAL:
        value = summary.get(family)
        by_score = value if isinstance(value, dict) else {}
        if any(str(key).isdigit() for key in by_score):
            by_score = {"strict": by_score}
        for score, by_k in by_score.items():
            known = {
                int(k): estimate
                for k, inner in (by_k.items() if isinstance(by_k, dict) else ())
                if str(k).isdigit() and (estimate := _estimate(inner)) is not None
            }
            if known:
                found[family, str(score)] = dict(sorted(known.items()))
    return found


def _estimate(value: object) -> Estimate | None:
    figures = [value.get(key) for key in ("mean", "low", "high")] if isinstance(value, dict) else []
    known = [f for f in map(number, figures) if f is not None and 0 <= f <= 1]
    return Estimate(mean=known[0], low=known[1], high=known[2]) if len(known) == 3 else None


def _contamination(found: object) -> str:
    """A sentence, empty where nothing was found or nothing was looked for."""
    if not isinstance(found, dict) or not found.get("matched"):
        return ""
    sources = found.get("sources")
    named = [
        f"{source.get('name')} of {source.get('stage')}"
        for source in (sources if isinstance(sources, list) else [])
        if isinstance(source, dict) and source.get("matched")
    ]
    where = f": {', '.join(named)}" if named else ""
    return (
        f"Contamination: {found['matched']} of {found.get('prompts', '?')} prompts stand in the "
        f"training data, whole or by {found.get('n', 'n')} words in a row{where}."
    )


def several(evaluations: list[Evaluation]) -> tuple[list[int], list[tuple[Evaluation, str, str]]]:
    """The table of pass@k and maj@k: the ks, and a row for each evaluation, family and score."""
    rows = [(e, family, score) for e in evaluations for family, score in e.estimates]
    ks = {k for e in evaluations for by_k in e.estimates.values() for k in by_k}
    return sorted(ks), rows


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


def asked(evaluation: Evaluation) -> str:
    """What a model was asked: the data set, behind the evaluation's name where it has its own."""
    name, data = evaluation.name, evaluation.data
    return data if name in (DEFAULT, data) else f"{name}: {data}"


def heading(metric: str) -> str:
    """A share's name as a column's."""
    return metric.replace("_", " ").capitalize()


def legend(evaluations: list[Evaluation]) -> list[str]:
    """What the columns mean, in sentences, for those that the tables have."""
    named = {name for e in evaluations for name in e.proportions}
    return [sentence for name, sentence in MEANING.items() if name in named]


def _order(label: str, model: str, stages: list[str]) -> int:
    """Which stage made the model: the one of its label, else of its path, else the last named in
    the label; −1 for none.
    """
    words = re.split(r"[^a-z0-9]+", label.lower())
    named = [stage for stage in stages if stage.lower() in words]
    known = [stage for stage in (label, *_made(model), *named[-1:]) if stage in stages]
    return stages.index(known[0]) if known else -1


def _made(model: str) -> list[str]:
    """The folder of the stage that wrote the model or the checkpoint at this path, if one did."""
    pairs = pairwise(Path(model).parts)
    return [part for part, inner in pairs if inner in ("model", "checkpoints")][-1:]


def lines(evaluations: list[Evaluation]) -> list[str]:
    """The tables as plain text, for the terminal."""
    text = [line for names, rows in tables(evaluations) for line in _lines(names, rows)]
    return text + [
        f"{e.label} ({asked(e)}, {score}): "
        + ", ".join(
            f"{family}@{k} {shares.percent(x)}" for k, x in e.estimates[family, score].items()
        )
        for e, family, score in several(evaluations)[1]
    ]


def _lines(names: list[str], rows: list[Evaluation]) -> list[str]:
    cells = [["model", "data", "n", *(f"{name} [95 %]" for name in names)]]
    cells += [
        [e.label, asked(e), str(e.n), *(shares.percent(e.proportions.get(name)) for name in names)]
        for e in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return [text[0], "  ".join("-" * width for width in widths), *text[1:]]
