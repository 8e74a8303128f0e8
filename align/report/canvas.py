"""Small inline SVG whose colours are the page's own, so that charts follow light and dark.

Matplotlib knows no CSS variables: it draws with stand-in colours, which are replaced afterwards.
Texts stay texts (small, and in the page's font); ids are deterministic and unique to the chart, for
several charts share one HTML document. No text of a run enters an SVG of the page: titles and
legends are HTML there. A picture for a paper is the same drawing in fixed colours and carries them.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (3.0, 1.72)  # inches; 216 × 124 units of the SVG, a third larger on the screen
TOP, BOTTOM = 0.232, 0.404  # inches above and below the axes, for the unit and the labels
TITLE = 0.2  # inches more above, where a picture carries its own title
DPI = 300  # of a picture's pixels


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours by role: of the series, of texts, of lines, of texts that matter."""

    series: tuple[str, ...]
    muted: str
    line: str
    ink: str

    def of(self, index: int) -> str:
        """The colour of the index-th series; they repeat after the last."""
        return self.series[index % len(self.series)]


# Stand-ins, which become the page's variables; and what they are on white paper.
PAGE = Palette(
    series=tuple(f"#01020{i}" for i in range(1, 8)), muted="#010210", line="#010211", ink="#010212"
)
PAPER = Palette(
    series=("#1f5fae", "#c2700f", "#17724a", "#8451a8", "#8a929b", "#b3382c", "#2b8f9c"),
    muted="#5d6671",
    line="#dfe3e6",
    ink="#1b1f24",
)
COLOURS = {colour: f"var(--series-{i})" for i, colour in enumerate(PAGE.series, start=1)} | {
    PAGE.muted: "var(--muted)",
    PAGE.line: "var(--line)",
    PAGE.ink: "var(--ink)",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart that is still to be drawn: on the page, or as a picture.

    draw: gets axes made for values over steps, and may set them otherwise. unit: stands above the
    vertical axis. salt: what the chart's ids are made unique by. title, legend: words that the page
    has in its HTML, and that a picture carries in itself; the legend names the series in order.
    """

    draw: Callable[["Axes", Palette], None]
    unit: str
    salt: str
    title: str = ""
    legend: tuple[str, ...] = ()
    size: tuple[float, float] = SIZE


def svg(drawing: Drawing) -> str:
    """The chart as an inline SVG of the page, without its title and legend."""
    import matplotlib

    with matplotlib.rc_context(_style(PAGE) | {"svg.hashsalt": ascii(drawing.salt)}):
        buffer = io.StringIO()
        _figure(drawing, PAGE).savefig(buffer, format="svg", transparent=True)
    return _inline(buffer.getvalue())


def save(drawing: Drawing, path: Path) -> list[Path]:
    """The chart with title and legend as path.svg and path.png, in dark ink on white."""
    import matplotlib

    written = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
    with matplotlib.rc_context(_style(PAPER) | {"svg.hashsalt": ascii(drawing.salt)}):
        figure = _figure(drawing, PAPER, room=TITLE if drawing.title else 0.0)
        if drawing.title:
            figure.suptitle(drawing.title, x=0.02, y=0.985, ha="left", va="top", fontsize=9)
        if drawing.legend:
            handles = [_patch(PAPER.of(i)) for i in range(len(drawing.legend))]
            below = {"loc": "upper left", "bbox_to_anchor": (0.1, 0.0), "frameon": False}
            figure.legend(handles, drawing.legend, ncols=min(3, len(handles)), **below)
        for file in written:
            dated = {"Date": None} if file.suffix == ".svg" else {}
            figure.savefig(file, dpi=DPI, bbox_inches="tight", facecolor="white", metadata=dated)
    return written


def _patch(colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, linewidth=0)


def _figure(drawing: Drawing, palette: Palette, *, room: float = 0.0) -> "Figure":
    """The axes with what is drawn on them; room: inches above them for a title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    width, height = drawing.size[0], drawing.size[1] + room
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.15, right=0.985, top=1 - (TOP + room) / height, bottom=BOTTOM / height
    )
    axes = figure.add_subplot()
    axes.margins(x=0.02)
    # The unit stands above the axis: a rotated label would take a tenth of so small a chart.
    axes.set_title(drawing.unit, loc="left", fontsize=8, x=-0.17, pad=5)
    axes.set_xlabel("step", loc="right", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    drawing.draw(axes, palette)
    return figure


def _style(palette: Palette) -> dict[str, object]:
    return {
        "svg.fonttype": "none",
        "font.size": 8,
        "text.parse_math": False,
        "text.color": palette.ink,
        "axes.edgecolor": palette.line,
        "axes.labelcolor": palette.muted,
        "axes.titlecolor": palette.muted,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": palette.line,
        "grid.linewidth": 0.6,
        "xtick.color": palette.line,
        "ytick.color": palette.line,
        "xtick.labelcolor": palette.muted,
        "ytick.labelcolor": palette.muted,
        "ytick.left": False,
        "xtick.major.size": 3,
    }


def colour(index: int) -> str:
    """The CSS colour of the index-th series, for the legend."""
    return COLOURS[PAGE.of(index)]


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
