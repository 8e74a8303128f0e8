"""Writes OUT/report.html: one file, nothing fetched, safe to open whatever the model wrote.

Three walls stand between a completion and the reader's browser: Jinja escapes every value,
completions are compressed data that the script turns into text nodes only, and the page's own
content security policy allows no network and no script but the one whose hash it names.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from align.files.disk import whole
from align.report import answers, comparisons, evaluations, headline, lineage, payload, shares
from align.report.folder import Row, Run, Stage, read_run
from align.report.heldout import CHANCE
from align.report.overview import Overview, overview
from align.report.samples import Samples, budgets, read_samples
from align.report.sections import Section, duration, section, when

HERE = Path(__file__).parent
SCRIPTS = ("cards.js", "store.js", "changed.js", "browser.js", "main.js")
LARGEST = 50_000_000  # bytes of completions as JSON, about 100,000 of them; a fifth as compressed


@dataclass(frozen=True, kw_only=True)
class Source:
    """One stage's completions for the browser, or all evaluations' answers."""

    id: str
    name: str
    packed: str


def write(out: Path) -> Path:
    """Writes OUT/report.html from whatever the run folder holds so far, and returns its path.

    Raises FileNotFoundError where there is no folder. The file is replaced whole.
    """
    run = read_run(Path(out))
    html = render(run)
    path = run.out / "report.html"
    with whole(path) as file:
        # A lone surrogate, which a model can produce, has no UTF-8; it becomes a question mark.
        file.write(html.encode("utf-8", errors="replace"))
    return path


def render(run: Run) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    evaluated, notes = evaluations.read_evaluations(run)
    changes = comparisons.changes(evaluated, run)
    sections = [section(stage) for stage in run.stages]
    heldout = {part.stage.name: part.heldout for part in sections}
    table = overview(run, evaluated, changes, heldout, {s.stage.name: s.kept for s in sections})
    sources, cut = _sources(run.stages, evaluated)
    graph = lineage.read_graph(run)
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
    environment.globals |= {
        "shares": shares,
        "heading": evaluations.heading,
        "asked": evaluations.asked,
        "duration": duration,
        "Markup": Markup,
    }
    return environment.get_template("page.html.j2").render(
        run=run,
        when=when(run.stages),
        sections=sections,
        graph=graph,
        metrics=_metrics(graph, table, sections),
        overview=table,
        evaluations=evaluated,
        tables=evaluations.tables(evaluated),
        several=evaluations.several(evaluated),
        legend=evaluations.legend(evaluated),
        changes=changes,
        chain=_chain(run.stages, graph),
        chance=CHANCE,
        headline=headline.sentences(heldout, changes),
        sources=sources,
        notes=run.notes + notes + cut,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=_hash(script),
    )


def _chain(stages: list[Stage], graph: lineage.Graph) -> str:
    """The stages in order: an arrow leads to one from the one before it, unless it is another's."""
    text = stages[0].name if stages else ""
    parents = {node.name: node.parents for node in graph.nodes}
    for before, stage in pairwise(stages):
        unknown = not parents[stage.name] and "model" not in stage.config
        follows = unknown or before.name in parents[stage.name]
        text += f"{' → ' if follows else ', '}{stage.name}"
    return text


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _sources(
    stages: list[Stage], evaluated: list[evaluations.Evaluation]
) -> tuple[list[Source], list[str]]:
    """What the browser of completions shows, and what had to be left out of it."""
    paths = [(s.name, s.path / "samples.jsonl") for s in stages]
    paths = [(name, path) for name, path in paths if path.is_file()]
    # As ASCII JSON a text of other letters is up to twice as long as it is as UTF-8.
    granted = budgets([2 * path.stat().st_size for _, path in paths], LARGEST)
    sources, notes = [], []
    for (name, path), budget in zip(paths, granted, strict=True):
        found: Samples | None = read_samples(path, budget=budget)
        if found is not None:
            sources.append(_source(len(sources), name, {"groups": found.groups}))
            notes += found.notes
    compared, left_out = answers.answers(evaluated)
    if compared:
        sources.append(_source(len(sources), "", {"sets": compared}))
    return sources, notes + left_out


def _source(place: int, name: str, value: Row) -> Source:
    return Source(id=f"samples-{place + 1}", name=name, packed=payload.pack(value))


def _metrics(graph: lineage.Graph, table: Overview, sections: list[Section]) -> dict[str, str]:
    """A stage's most telling figure, for the graph: what held-out data say, else its last row."""
    found = {}
    logged = {part.stage.name: part.stage.metrics for part in sections}
    lines = {line.name: line for line in table.lines}
    for node in graph.nodes:
        line = lines.get(node.name)
        cells = enumerate(line.cells) if line else ()
        column, entry = next(((i, e) for i, c in cells for e in c if e.shares), (0, None))
        if entry is not None:
            name, share = next(iter(entry.shares.items()))
            found[node.name] = f"{shares.percent(share)} {name}, {table.columns[column]}"
        elif line is not None and line.other != "not evaluated":
            found[node.name] = line.other
        else:
            found[node.name] = _last(logged.get(node.name, []))
    return found


def _last(rows: list[Row]) -> str:
    from align.report import canvas, curves

    for key in ("accuracy", "reward", "loss"):
        value = curves.number(rows[-1].get(key)) if rows else None
        if value is not None:
            return f"{key} {canvas.ends(value)} at step {rows[-1]['step']}"
    return ""
