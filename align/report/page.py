"""Writes OUT/report.html: one file, nothing fetched, safe to open whatever the model wrote.

Three walls stand between a completion and the reader's browser: Jinja escapes every value, samples
are JSON that the script turns into text nodes only, and the page's own content security policy
allows no network and no script but the one whose hash it names.
"""

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from align.report import canvas, charts, comparisons, curves, evaluations, headline, shares
from align.report.curves import Panel
from align.report.folder import Run, Stage, read_run
from align.report.heldout import CHANCE, Heldout, read_heldout
from align.report.samples import Samples, read_samples

HERE = Path(__file__).parent
SCRIPTS = ("cards.js", "page.js")
LARGEST = 4_800_000  # bytes of the page; what charts leave of it is for samples
LEAST_FOR_SAMPLES = 500_000  # bytes, for one stage


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A panel as drawn, with the words beside it; `svg` is ours and goes in unescaped."""

    title: str
    svg: str
    first: str
    last: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One activity of the time split, for its legend."""

    name: str
    colour: str
    seconds: str
    share: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page shows of one stage."""

    stage: Stage
    when: str
    duration: str
    tokens: str
    charts: dict[str, list[Chart]]
    time_svg: str
    time_parts: list[Part]
    heldout: Heldout | None
    calibration_svg: str
    samples: Samples | None
    notes: list[str]


def write(out: Path) -> Path:
    """Writes OUT/report.html from whatever the run folder holds so far, and returns its path.

    Raises FileNotFoundError where there is no folder. The file is replaced whole.
    """
    run = read_run(Path(out))
    html = render(run)
    path = run.out / "report.html"
    unfinished = path.with_name(f".report.html.{os.getpid()}")
    # A lone surrogate, which a model can produce, has no UTF-8; it becomes a question mark.
    unfinished.write_bytes(html.encode("utf-8", errors="replace"))
    unfinished.replace(path)
    return path


def render(run: Run) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    evaluated, notes = evaluations.read_evaluations(run)
    changes, unpaired = comparisons.changes(evaluated, run)
    sections = _sections(run.stages)
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent100": lambda share: f"{100 * share:.1f}",
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    environment.globals |= {"shares": shares, "heading": evaluations.heading}
    return environment.get_template("page.html.j2").render(
        run=run,
        when=_when(run.stages),
        sections=sections,
        evaluations=evaluated,
        tables=evaluations.tables(evaluated),
        legend=evaluations.legend(evaluated),
        changes=changes,
        chain=_chain(run.stages),
        chance=CHANCE,
        headline=headline.sentences(
            {section.stage.name: section.heldout for section in sections}, changes
        ),
        notes=run.notes + notes + unpaired,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=_hash(script),
        Markup=Markup,
    )


def _chain(stages: list[Stage]) -> str:
    """The stages in order: an arrow leads to one from the one before it, unless it is another's."""
    text = stages[0].name if stages else ""
    for before, stage in pairwise(stages):
        parent = stage.config.get("model")
        elsewhere = isinstance(parent, str) and parent != f"@{before.name}"
        text += f"{', ' if elsewhere else ' → '}{stage.name}"
    return text


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _sections(stages: list[Stage]) -> list[Section]:
    drawn = [(stage, _charts(stage), _time(stage)) for stage in stages]
    used = sum(len(time[0]) for _, _, time in drawn)
    used += sum(len(c.svg) for _, groups, _ in drawn for group in groups.values() for c in group)
    sampled = sum((stage.path / "samples.jsonl").is_file() for stage in stages)
    budget = max(LEAST_FOR_SAMPLES, (LARGEST - used) // max(1, sampled))
    return [_section(stage, groups, time, budget) for stage, groups, time in drawn]


def _section(
    stage: Stage, groups: dict[str, list[Chart]], time: tuple[str, list[Part]], budget: int
) -> Section:
    samples = read_samples(stage.path / "samples.jsonl", budget=budget)
    heldout, heldout_notes = read_heldout(stage.path / "heldout.json")
    tokens = sum(curves.number(row.get("tokens")) or 0 for row in stage.metrics)
    return Section(
        stage=stage,
        when=_when([stage]),
        duration=_duration(stage),
        tokens=canvas.short(tokens) if tokens else "",
        charts=groups,
        time_svg=time[0],
        time_parts=time[1],
        heldout=heldout,
        calibration_svg=charts.calibration(heldout.bins, scope=stage.name)
        if heldout and heldout.bins
        else "",
        samples=samples,
        notes=stage.notes + heldout_notes + (samples.notes if samples else []),
    )


def _charts(stage: Stage) -> dict[str, list[Chart]]:
    found = curves.panels(stage.metrics, kind=stage.kind)
    return {name: [_chart(panel, stage.name) for panel in group] for name, group in found.items()}


def _chart(panel: Panel, scope: str) -> Chart:
    broken = f"{panel.broken:,} of {len(panel.values):,} not finite" if panel.broken else ""
    drawable = panel.broken < len(panel.values)
    return Chart(
        title=panel.title,
        svg=charts.curve(panel, scope=scope) if drawable else "",
        first=canvas.ends(panel.values[0]),
        last=canvas.ends(panel.last),
        note=broken,
    )


def _time(stage: Stage) -> tuple[str, list[Part]]:
    split = curves.time_split(stage.metrics)
    if split is None:
        return "", []
    parts = [
        Part(
            name=name,
            colour=canvas.colour(index),
            seconds=f"{seconds:.3g} s",
            share=f"{100 * share:.0f} %",
        )
        for index, (name, (seconds, share)) in enumerate(split.shares().items())
    ]
    return charts.stack(split, scope=stage.name), parts


def _times(stages: list[Stage]) -> list[float]:
    logged = [curves.number(row.get("time")) for stage in stages for row in stage.metrics]
    return [moment for moment in logged if moment and 0 < moment < 1e11]


def _when(stages: list[Stage]) -> str:
    """First and last logged moment, in UTC: no clock is read, so a run has one page."""
    times = _times(stages)
    if not times:
        return ""
    first, last = (datetime.fromtimestamp(moment, UTC) for moment in (min(times), max(times)))
    if f"{first:%F %H:%M}" == f"{last:%F %H:%M}":
        return f"{first:%Y-%m-%d %H:%M} UTC"
    if first.date() == last.date():
        return f"{first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _duration(stage: Stage) -> str:
    """The sum of the logged seconds, which a pause before a resume does not lengthen."""
    split = curves.time_split(stage.metrics)
    seconds = round(sum(sum(part) for part in split.parts.values())) if split else 0
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s" if seconds else ""
