"""The report's charts: a curve over steps, the seconds a step takes, a model's calibration."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from align.report.canvas import LINE, MUTED, SERIES, series, svg
from align.report.curves import Panel, TimeSplit
from align.report.heldout import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 240
CALIBRATION_SIZE = (3.0, 2.7)  # inches; nearly square, so that the diagonal looks like one


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

    return svg(draw, unit=panel.unit, salt=f"{scope}/{panel.key}")


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

    return svg(draw, unit="seconds per step", salt=f"{scope}/time split")


def calibration(bins: Sequence[Bin], *, scope: str = "") -> str:
    """Predicted probability against share right with its interval; on the diagonal both agree.

    A point's area goes with its number of pairs. scope: the stage.
    """

    def draw(axes: "Axes") -> None:
        predicted = [b.predicted for b in bins]
        most = max((b.pairs for b in bins), default=1)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.vlines(
            predicted,
            [b.low for b in bins],
            [b.high for b in bins],
            color=SERIES[0],
            linewidth=1.4,
            alpha=0.55,
            clip_on=False,
        )
        axes.scatter(
            predicted,
            [b.right for b in bins],
            s=[6 + 54 * b.pairs / most for b in bins],
            color=SERIES[0],
            linewidths=0,
            clip_on=False,
            zorder=3,
        )
        axes.grid(axis="x", color=LINE)
        axes.set_xlabel("predicted probability", loc="right", labelpad=1)
        ticks = [0, 0.25, 0.5, 0.75, 1]
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)
        axes.set_xticklabels([f"{tick:g}" for tick in ticks])

    return svg(draw, unit="share right", salt=f"{scope}/calibration", size=CALIBRATION_SIZE)


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
