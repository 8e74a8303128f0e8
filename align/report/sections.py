"""What the page shows of one stage: its charts, where its time and tokens went, its warnings."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from align.report import canvas, charts, curves
from align.report.canvas import Drawing
from align.report.curves import Panel, Split
from align.report.folder import Row, Stage
from align.report.heldout import Heldout, read_heldout
from align.report.kept import Kept, read_kept

MADE_FROM = ("code", "inputs", "files", "data", "parents", "libraries", "started", "finished")


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
    """One part of a split, for its legend."""

    name: str
    colour: str
    mean: str
    share: str


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Where a step's seconds or tokens go, as drawn and in figures."""

    heading: str
    svg: str
    parts: list[Part]


@dataclass(frozen=True, kw_only=True)
class Warned:
    """One row of the watch's log."""

    step: str
    rule: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page shows of one stage."""

    stage: Stage
    when: str
    duration: str
    tokens: str
    charts: dict[str, list[Chart]]
    splits: list[Shares]
    heldout: Heldout | None
    calibration_svg: str
    kept: Kept | None
    warned: list[Warned]
    made_from: dict[str, list[tuple[str, str]]]
    notes: list[str]


def section(stage: Stage) -> Section:
    heldout, heldout_notes = read_heldout(stage.path / "heldout.json")
    tokens = sum(curves.number(row.get("tokens")) or 0 for row in stage.metrics)
    found = curves.panels(stage.metrics, kind=stage.kind)
    drawn = {name: [_chart(panel, stage.name) for panel in group] for name, group in found.items()}
    bins = heldout.bins if heldout else []
    return Section(
        stage=stage,
        when=when([stage]),
        duration=_duration(stage),
        tokens=canvas.short(tokens) if tokens else "",
        charts=drawn,
        splits=[_shares(split, stage.name) for split in splits(stage)],
        heldout=heldout,
        calibration_svg=canvas.svg(charts.calibration(bins, scope=stage.name)) if bins else "",
        kept=read_kept(stage),
        warned=[_warned(row) for row in stage.warnings],
        made_from=made_from(stage.manifest),
        notes=stage.notes + heldout_notes,
    )


def drawings(stage: Stage) -> list[Drawing]:
    """Every chart of the stage in the page's order, its name in their titles."""
    groups = curves.panels(stage.metrics, kind=stage.kind).values()
    heldout, _ = read_heldout(stage.path / "heldout.json")
    found = [charts.curve(panel, scope=stage.name) for g in groups for panel in g if _some(panel)]
    found += [charts.stack(split, scope=stage.name) for split in splits(stage)]
    if heldout and heldout.bins:
        found.append(charts.calibration(heldout.bins, scope=stage.name))
    return [replace(drawing, title=f"{stage.name}: {drawing.title}") for drawing in found]


def splits(stage: Stage) -> list[Split]:
    both = curves.time_split(stage.metrics), curves.token_split(stage.metrics)
    return [split for split in both if split is not None]


def _some(panel: Panel) -> bool:
    """Whether anything of it can be drawn."""
    return panel.broken < len(panel.values)


def _chart(panel: Panel, scope: str) -> Chart:
    broken = f"{panel.broken:,} of {len(panel.values):,} not finite" if panel.broken else ""
    return Chart(
        title=panel.title,
        svg=canvas.svg(charts.curve(panel, scope=scope)) if _some(panel) else "",
        first=canvas.ends(panel.values[0]),
        last=canvas.ends(panel.last),
        note=broken,
    )


def _shares(split: Split, scope: str) -> Shares:
    mean = (lambda v: f"{v:.3g} s") if split.unit == "seconds" else (lambda v: f"{v:,.0f}")
    parts = [
        Part(name=name, colour=canvas.colour(i), mean=mean(value), share=f"{100 * share:.0f} %")
        for i, (name, (value, share)) in enumerate(split.shares().items())
    ]
    heading = {"seconds": "Time", "tokens": "Tokens computed"}[split.unit]
    return Shares(heading=heading, svg=canvas.svg(charts.stack(split, scope=scope)), parts=parts)


def _warned(row: Row) -> Warned:
    figures = row.get("figures")
    seen = [f"{k} {_figure(v)}" for k, v in figures.items()] if isinstance(figures, dict) else []
    message = str(row.get("message", ""))
    return Warned(
        step=str(row.get("step", "")),
        rule=str(row.get("rule", "")).replace("_", " "),
        message=f"{message} ({', '.join(seen)})" if seen else message,
    )


def _figure(value: object) -> str:
    known = curves.number(value)
    return canvas.ends(known) if known is not None and known == known else str(value)


def made_from(manifest: Row) -> dict[str, list[tuple[str, str]]]:
    """The manifest's parts as names and values; the configuration, shown elsewhere, left out."""
    found = {}
    for part in MADE_FROM:
        value = manifest.get(part)
        if isinstance(value, dict):
            found[part] = [(str(k), str(v)) for k, v in value.items() if v is not None]
        elif isinstance(value, list):
            found[part] = [("", str(item)) for item in value]
        elif part in ("started", "finished") and curves.number(value):
            found[part] = [("", _moment(float(value)))]  # type: ignore[arg-type]
        elif value is not None:
            found[part] = [("", str(value))]
    return {part: rows for part, rows in found.items() if rows}


def when(stages: list[Stage]) -> str:
    """First and last logged moment, in UTC: no clock is read, so a run has one page."""
    logged = [curves.number(row.get("time")) for stage in stages for row in stage.metrics]
    times = [moment for moment in logged if moment and 0 < moment < 1e11]
    if not times:
        return ""
    first, last = (datetime.fromtimestamp(moment, UTC) for moment in (min(times), max(times)))
    if f"{first:%F %H:%M}" == f"{last:%F %H:%M}":
        return f"{first:%Y-%m-%d %H:%M} UTC"
    if first.date() == last.date():
        return f"{first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _moment(seconds: float) -> str:
    if not 0 < seconds < 1e11:
        return str(seconds)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _duration(stage: Stage) -> str:
    """The sum of the logged seconds, which a pause before a resume does not lengthen."""
    split = curves.time_split(stage.metrics)
    return duration(sum(sum(part) for part in split.parts.values())) if split else ""


def duration(seconds: float) -> str:
    """`2 h 3 min`, `4 min 5 s`, `6 s`; empty for none."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s" if whole else ""
