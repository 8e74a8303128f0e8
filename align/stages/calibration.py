"""Whether a reward model's probabilities mean what they say.

Each pair is put to it in an order drawn by lot, a against b; sigmoid(score of a - score of b) is
its probability that a is the better one. Of pairs given 0.7, seven in ten should have a better.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from align.evaluation.statistics import proportion

BINS = 10


def calibration(margins: Sequence[float], *, seed: int) -> dict[str, Any]:
    """bins: equal-width bins of the probability, those without pairs left out, each with the mean
    `predicted`, the share `right` and its 95 % interval; expected_calibration_error: their gap,
    weighted by pairs (Naeini 2015). margins: score of the preferred one minus that of the other.
    """
    draw = random.Random(f"order of pairs {seed}")
    asked = []
    for margin in margins:
        first = draw.random() < 0.5
        asked.append((_sigmoid(margin if first else -margin), first))
    bins = []
    for i in range(BINS):
        inside = [(p, first) for p, first in asked if min(int(p * BINS), BINS - 1) == i]
        if not inside:
            continue
        share = proportion(sum(first for _, first in inside), len(inside))
        predicted = sum(p for p, _ in inside) / len(inside)
        bins.append(
            {
                "predicted": predicted,
                "right": share.mean,
                "pairs": len(inside),
                "low": share.low,
                "high": share.high,
            }
        )
    gap = sum(each["pairs"] * abs(each["predicted"] - each["right"]) for each in bins)
    return {"bins": bins, "expected_calibration_error": gap / max(1, len(asked))}


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
