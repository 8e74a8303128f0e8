"""Every chart of a run as SVG and PNG, for a paper: dark ink on white, title and legend inside."""

import re
from pathlib import Path

from align.report import canvas, charts, lineage
from align.report.canvas import Drawing
from align.report.evaluations import asked, read_evaluations
from align.report.folder import Run, read_run
from align.report.kept import read_kept
from align.report.sections import drawings
from align.report.shares import RIGHT


def pictures(out: Path, into: Path) -> list[Path]:
    """Writes the charts of the run folder `out` into a folder, and returns the files.

    `STAGE-KEY.svg` and `.png` for each curve and split, `STAGE-samples-by-fate` for a stage that
    samples, `evaluations-DATA` and `chain`. Raises FileNotFoundError where there is no run folder.
    """
    run = read_run(Path(out))
    into.mkdir(parents=True, exist_ok=True)
    return [
        file for drawing in _drawings(run) for file in canvas.save(drawing, into / _name(drawing))
    ]


def _drawings(run: Run) -> list[Drawing]:
    found = [charts.chain(lineage.read_graph(run))] if run.stages else []
    evaluated, _ = read_evaluations(run)
    for name in dict.fromkeys(asked(e) for e in evaluated):
        rows = [
            (e.label, [(m, e.proportions[m]) for m in RIGHT if m in e.proportions])
            for e in evaluated
            if asked(e) == name
        ]
        rows = [row for row in rows if row[1]]
        if rows:
            found.append(charts.standings(rows, asked=name))
    for stage in run.stages:
        found += drawings(stage)
        kept = read_kept(stage)
        if kept is not None:
            found.append(charts.fates(kept, scope=stage.name))
    return found


def _name(drawing: Drawing) -> str:
    """A file's name of the chart's own: no path of a run can lead out of the folder."""
    return re.sub(r"[^\w.-]+", "-", drawing.salt).strip("-.")[:120] or "chart"
