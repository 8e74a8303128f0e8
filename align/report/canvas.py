"""Small inline SVG whose colours are the page's own, so that charts follow light and dark.

Matplotlib knows no CSS variables: it draws with stand-in colours, which are replaced afterwards.
Texts stay texts (small, and in the page's font); ids are deterministic and unique to the chart, for
several charts share one HTML document. No text of a run enters an SVG: titles and legends are HTML.
"""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (3.0, 1.72)  # inches; 216 × 124 units of the SVG, a third larger on the screen
TOP, BOTTOM = 0.232, 0.404  # inches above and below the axes, for the unit and the labels
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


def svg(
    draw: Callable[["Axes"], None],
    *,
    unit: str,
    salt: str,
    size: tuple[float, float] = SIZE,
) -> str:
    """One chart: `draw` gets axes made for values over steps and may set them otherwise.

    unit: stands above the vertical axis. salt: what the chart's ids are made unique by.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context(STYLE | {"svg.hashsalt": ascii(salt)}):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        figure.subplots_adjust(
            left=0.15, right=0.985, top=1 - TOP / size[1], bottom=BOTTOM / size[1]
        )
        axes = figure.add_subplot()
        axes.margins(x=0.02)
        # The unit stands above the axis: a rotated label would take a tenth of so small a chart.
        axes.set_title(unit, loc="left", fontsize=8, x=-0.17, pad=5)
        axes.set_xlabel("step", loc="right", labelpad=1)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    return _inline(buffer.getvalue())


def series(index: int) -> str:
    """The stand-in colour of the index-th series; they repeat after the last."""
    return SERIES[index % len(SERIES)]


def colour(index: int) -> str:
    """The CSS colour of the index-th series, for the legend."""
    return COLOURS[series(index)]


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
