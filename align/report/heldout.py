"""How well a reward model orders pairs it has not seen: OUT/<stage>/heldout.json.

Accuracy is a share of pairs, so chance is one half. For the calibration each pair is put in a
random order as "is the first the preferred one?", answered with a probability: that of the score
difference's sigmoid. A bin holds the pairs with nearby answers.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from align.evaluation.statistics import Proportion
from align.report.curves import number
from align.report.folder import Row, read_json
from align.report.shares import counted

CHANCE = 0.5


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Pairs with nearby predictions: mean predicted probability, share right and its interval."""

    predicted: float
    right: float
    low: float
    high: float
    pairs: int

    @property
    def holds(self) -> bool:
        """Whether the interval of what happened holds what was predicted."""
        return self.low <= self.predicted <= self.high


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """Pairwise accuracy, calibration and loss on held-out pairs; None where not written."""

    accuracy: Proportion
    error: float | None
    loss: float | None
    bins: list[Bin]

    @property
    def verdict(self) -> str:
        if self.accuracy.low > CHANCE:
            return "better than chance"
        if self.accuracy.high < CHANCE:
            return "worse than chance"
        return "not distinguishable from chance"

    @property
    def calibration(self) -> str:
        """The figure in a sentence, for those who do not see it."""
        held = sum(b.holds for b in self.bins)
        return (
            f"In {held} of {len(self.bins)} bins the interval of the share right holds the "
            f"predicted probability."
        )


def read_heldout(path: Path) -> tuple[Heldout | None, list[str]]:
    """The file as it is found, None where there is none or no pairs in it, and notes."""
    row, notes = read_json(path)
    accuracy = counted(row.get("successes"), row.get("pairs"))
    if accuracy is None:
        found = row and not notes
        return None, notes + ([f"{_name(path)} counts no pairs and was left out."] if found else [])
    listed = row.get("bins")
    listed = [b for b in listed if not _empty(b)] if isinstance(listed, list) else []
    bins = [found for entry in listed if (found := _bin(entry)) is not None]
    if len(bins) < len(listed):
        notes = [*notes, f"{len(listed) - len(bins)} unreadable bins in {_name(path)} left out."]
    return Heldout(
        accuracy=accuracy,
        error=_finite(row.get("expected_calibration_error")),
        loss=_finite(row.get("loss")),
        bins=sorted(bins, key=lambda b: b.predicted),
    ), notes


def sentence(stage: str, heldout: Heldout) -> str:
    """For the head of the page and the terminal."""
    share = heldout.accuracy
    return (
        f"{stage} orders {100 * share.mean:.1f} % of {share.n:,} held-out pairs right "
        f"(95 % interval {100 * share.low:.1f} to {100 * share.high:.1f} %): {heldout.verdict} "
        f"(50 %)."
    )


def _empty(entry: object) -> bool:
    """No pair fell into the bin: there is nothing to draw, and nothing is missing."""
    return isinstance(entry, dict) and entry.get("pairs") == 0


def _bin(entry: object) -> Bin | None:
    """The bin, or None for what is not one."""
    values: Row = entry if isinstance(entry, dict) else {}
    shares = [_finite(values.get(name)) for name in ("predicted", "right", "low", "high")]
    pairs = values.get("pairs")
    if not isinstance(pairs, int) or pairs < 1:
        return None
    if any(share is None or not 0 <= share <= 1 for share in shares):
        return None
    predicted, right, low, high = (share for share in shares if share is not None)
    return Bin(predicted=predicted, right=right, low=low, high=high, pairs=pairs)


def _finite(value: object) -> float | None:
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
