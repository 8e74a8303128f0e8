"""Draws panels as small inline SVG whose colours are the page's own, so they follow light and dark.

Matplotlib knows no CSS variables: it draws with stand-in colours, which are replaced afterwards.
Texts stay texts (small, and in the page's font); ids are deterministic and unique to the chart, for
several charts share one HTML document. No text of a run enters an SVG: titles and legends are HTML.
"""

import io
import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from align.report.curves import Panel, TimeSplit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (3.0, 1.72)  # inches; 216 × 124 units of the SVG, a third larger on the screen
MOST_POINTS = 240
SERIES = [f"#01020{i}" for i in range(1, 8)]
MUTED, LINE = "#010210", "#010211"
COLOURS = {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, start=1)} | {
    MUTED: "var(--muted)",
    LINE: "var(--line)",
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 8,
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.left": False,
    "xtick.major.size": 3,
}


def curve(panel: Panel, *, scope: str = "") -> str:
    """A series over steps: each point pale, a running mean strong; a short one is one marked line.

    scope: the stage; it keeps the ids of two stages' charts apart.
    """

    def draw(axes: "Axes") -> None:
        steps, values = _thin(np.array(panel.steps, float), np.array(panel.values, float))
        if len(values) < 20:
            axes.plot(steps, values, color=SERIES[0], linewidth=1.6, marker="o", markersize=2.6)
        else:
            axes.plot(steps, values, color=SERIES[0], linewidth=0.8, alpha=0.4)
            mean = _running_mean(values, max(3, len(values) // 12))
            axes.plot(steps, mean, color=SERIES[0], linewidth=1.8)
        if panel.unit.startswith("share") and np.nanmin(values, initial=0.0) >= 0:
            # A share of nothing at all still gets an axis that reads.
            axes.set_ylim(bottom=0, top=None if np.nanmax(values, initial=0.0) > 0 else 1)

    return _svg(draw, unit=panel.unit, salt=f"{scope}/{panel.key}")


def stack(split: TimeSplit, *, scope: str = "") -> str:
    """Seconds a step, one area above the other; the legend is the page's."""

    def draw(axes: "Axes") -> None:
        thinned = [
            _thin(np.array(split.steps, float), np.array(part)) for part in split.parts.values()
        ]
        steps, parts = thinned[0][0], np.array([part for _, part in thinned])
        if len(steps) == 1:  # an area needs two points
            steps, parts = np.array([steps[0] - 0.4, steps[0] + 0.4]), parts.repeat(2, axis=1)
        colours = [series(i) for i in range(len(parts))]
        axes.stackplot(steps, parts, colors=colours, linewidth=0)
        axes.set_ylim(bottom=0)

    return _svg(draw, unit="seconds per step", salt=f"{scope}/time split")


def series(index: int) -> str:
    """The stand-in colour of the index-th series; they repeat after the last."""
    return SERIES[index % len(SERIES)]


def colour(index: int) -> str:
    """The CSS colour of the index-th series, for the legend."""
    return COLOURS[series(index)]


def _svg(draw: Callable[["Axes"], None], *, unit: str, salt: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context(STYLE | {"svg.hashsalt": ascii(salt)}):
        figure = Figure(figsize=SIZE)
        FigureCanvasSVG(figure)
        figure.subplots_adjust(left=0.15, right=0.985, top=0.865, bottom=0.235)
        axes = figure.add_subplot()
        draw(axes)
        axes.margins(x=0.02)
        # The unit stands above the axis: a rotated label would take a tenth of so small a chart.
        axes.set_title(unit, loc="left", fontsize=8, x=-0.17, pad=5)
        axes.set_xlabel("step", loc="right", labelpad=1)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    return _inline(buffer.getvalue())


def short(value: float) -> str:
    """A number in as few characters as it needs: 0.25, 12k, 1.5M, 5e-6."""
    if value and abs(value) < 1e-3:
        return re.sub(r"e-0?", "e−", f"{value:.3g}").replace("-", "−", 1)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            divisor = {"G": 1e9, "M": 1e6, "k": 1e3}[letter]
            return f"{value / divisor:.4g}{letter}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def ends(value: float) -> str:
    """`short` with three significant digits, which is all that a noisy step's figure carries."""
    return short(float(f"{value:.3g}"))


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


def _inline(svg: str) -> str:
    """What matplotlib wrote, as part of a page: no prologue, our colours and font, few decimals."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--sans)", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: _two_decimals(tag[0]), svg)  # not the labels between tags
    for stand_in, variable in COLOURS.items():
        svg = svg.replace(stand_in, variable)
    return svg


def _two_decimals(tag: str) -> str:
    """A hundredth of a unit is more than a screen shows; six decimals would be half the size."""
    return re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", tag)
