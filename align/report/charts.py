"""The report's charts: a curve over steps, where a step's seconds and tokens go, a model's
calibration; and for pictures what the page shows in HTML: standings, samples by fate, the graph.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from align.report.canvas import Drawing, Palette
from align.report.curves import Panel, Split
from align.report.heldout import Bin
from align.report.kept import Kept
from align.report.lineage import Graph
from align.report.shares import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 240
CALIBRATION_SIZE = (3.0, 2.7)  # inches; nearly square, so that the diagonal looks like one


def curve(panel: Panel, *, scope: str = "") -> Drawing:
    """A series over steps: each point pale, a running mean strong; a short one is one marked line.

    scope: the stage; it keeps the ids of two stages' charts apart.
    """

    def draw(axes: "Axes", palette: Palette) -> None:
        steps, values = _thin(np.array(panel.steps, float), np.array(panel.values, float))
        if len(values) < 20:
            axes.plot(steps, values, color=palette.of(0), linewidth=1.6, marker="o", markersize=2.6)
        else:
            axes.plot(steps, values, color=palette.of(0), linewidth=0.8, alpha=0.4)
            mean = _running_mean(values, max(3, len(values) // 12))
            axes.plot(steps, mean, color=palette.of(0), linewidth=1.8)
        if panel.unit.startswith("share") and np.nanmin(values, initial=0.0) >= 0:
            # A share of nothing at all still gets an axis that reads.
            axes.set_ylim(bottom=0, top=None if np.nanmax(values, initial=0.0) > 0 else 1)

    return Drawing(draw=draw, unit=panel.unit, salt=f"{scope}/{panel.key}", title=panel.title)


def stack(split: Split, *, scope: str = "") -> Drawing:
    """Seconds or tokens a step, one area above the other."""

    def draw(axes: "Axes", palette: Palette) -> None:
        thinned = [
            _thin(np.array(split.steps, float), np.array(part)) for part in split.parts.values()
        ]
        steps, parts = thinned[0][0], np.array([part for _, part in thinned])
        if len(steps) == 1:  # an area needs two points
            steps, parts = np.array([steps[0] - 0.4, steps[0] + 0.4]), parts.repeat(2, axis=1)
        colours = [palette.of(i) for i in range(len(parts))]
        axes.stackplot(steps, parts, colors=colours, linewidth=0)
        axes.set_ylim(bottom=0)

    unit = f"{split.unit} per step"
    return Drawing(
        draw=draw,
        unit=unit,
        salt=f"{scope}/{split.unit} split",
        title=unit.capitalize(),
        legend=tuple(split.parts),
    )


def calibration(bins: Sequence[Bin], *, scope: str = "") -> Drawing:
    """Predicted probability against share right with its interval; on the diagonal both agree.

    A point's area goes with its number of pairs. scope: the stage.
    """

    def draw(axes: "Axes", palette: Palette) -> None:
        predicted = [b.predicted for b in bins]
        most = max((b.pairs for b in bins), default=1)
        axes.plot([0, 1], [0, 1], color=palette.muted, linewidth=1, linestyle=(0, (4, 3)))
        axes.vlines(
            predicted,
            [b.low for b in bins],
            [b.high for b in bins],
            color=palette.of(0),
            linewidth=1.4,
            alpha=0.55,
            clip_on=False,
        )
        axes.scatter(
            predicted,
            [b.right for b in bins],
            s=[6 + 54 * b.pairs / most for b in bins],
            color=palette.of(0),
            linewidths=0,
            clip_on=False,
            zorder=3,
        )
        axes.grid(axis="x", color=palette.line)
        axes.set_xlabel("predicted probability", loc="right", labelpad=1)
        ticks = [0, 0.25, 0.5, 0.75, 1]
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)
        axes.set_xticklabels([f"{tick:g}" for tick in ticks])

    return Drawing(
        draw=draw,
        unit="share right",
        salt=f"{scope}/calibration",
        title="Calibration",
        size=CALIBRATION_SIZE,
    )


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points, each a mean of neighbours: (n,) arrays in, (m,) arrays out."""
    if len(values) <= MOST_POINTS:
        return steps, values
    cuts = np.linspace(0, len(values), MOST_POINTS + 1).astype(int)
    spans = list(pairwise(cuts))
    return (
        np.array([_mean(steps[a:b]) for a, b in spans]),
        np.array([_mean(values[a:b]) for a, b in spans]),
    )


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean over `width` points around each, fewer at the ends; NaN stays a gap."""
    half = width // 2
    mean = [_mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    return np.where(np.isfinite(values), mean, np.nan)


def _mean(values: np.ndarray) -> float:
    finite = values[values == values]
    return float(finite.mean()) if len(finite) else float("nan")


def standings(rows: Sequence[tuple[str, Sequence[tuple[str, Interval]]]], *, asked: str) -> Drawing:
    """Each stage's shares with their 95 % intervals, the first stage on top.

    rows: (stage, [(score, share)]). asked: the evaluation.
    """
    scores = list(dict.fromkeys(score for _, shares in rows for score, _ in shares))
    gap = 0.8 / max(1, len(scores))

    def draw(axes: "Axes", palette: Palette) -> None:
        for i, score in enumerate(scores):
            found = [(y, dict(shares)[score]) for y, (_, shares) in enumerate(rows)
                     if score in dict(shares)]  # fmt: skip
            at = [y + (i - (len(scores) - 1) / 2) * gap for y, _ in found]
            low, high = ([100 * getattr(s, end) for _, s in found] for end in ("low", "high"))
            axes.hlines(at, low, high, color=palette.of(i), linewidth=1.6)
            axes.plot([100 * s.mean for _, s in found], at, "o", color=palette.of(i), markersize=4)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 100))
        axes.set_xticks(range(0, 101, 20))
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("percent right, with 95 % interval", loc="right", labelpad=1)

    return Drawing(
        draw=draw,
        unit="",
        salt=f"evaluations/{asked}",
        title=asked,
        legend=tuple(scores),
        size=(4.2, 0.8 + 0.34 * len(rows)),
    )


def fates(kept: Kept, *, scope: str) -> Drawing:
    """How many samples were kept, and how many were not for each reason."""

    def draw(axes: "Axes", palette: Palette) -> None:
        counts = [part.count for part in kept.parts]
        colours = [palette.of(0), *[palette.of(4)] * (len(counts) - 1)]
        axes.barh(range(len(counts)), counts, color=colours, height=0.7)
        axes.set_yticks(range(len(counts)), [part.name for part in kept.parts])
        axes.set_ylim(len(counts) - 0.5, -0.5)
        axes.yaxis.set_major_formatter(lambda y, _: kept.parts[round(y)].name)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("samples", loc="right", labelpad=1)

    size = (4.2, 0.8 + 0.22 * len(kept.parts))
    return Drawing(
        draw=draw,
        unit="",
        salt=f"{scope}/samples by fate",
        title=f"{scope}: Samples by fate",
        size=size,
    )


def chain(graph: Graph) -> Drawing:
    """The stage graph as the page has it: from top to bottom, longer edges on lanes at the left."""

    def draw(axes: "Axes", palette: Palette) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        for edge in graph.edges:
            x, top, bottom = -edge.lane / 2, edge.start, edge.end
            corners = [(0, top), (x, top), (x, bottom), (0, bottom)]
            style = {"fill": False, "edgecolor": palette.muted, "linewidth": 1.2, "zorder": 1}
            axes.add_patch(PathPatch(Path(corners), **style))
        for y, node in enumerate(graph.nodes):
            axes.plot(0, y, "o", color=palette.of(0), markersize=6, zorder=2)
            axes.text(0.4, y, node.name, va="center", fontweight="bold")
            axes.text(6, y, " · ".join(filter(None, (node.kind, node.action))), va="center",
                      color=palette.muted)  # fmt: skip
        lanes = max((edge.lane for edge in graph.edges), default=0)
        axes.set(xlim=(-lanes / 2 - 0.3, 12), ylim=(len(graph.nodes) - 0.5, -0.5))
        axes.set_axis_off()

    return Drawing(
        draw=draw,
        unit="",
        salt="chain",
        title="Chain",
        size=(4.2, 0.7 + 0.26 * len(graph.nodes)),
    )
