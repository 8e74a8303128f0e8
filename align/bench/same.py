"""Whether both sides did the same work: losses, gradient norms, gradients, verdicts.

The loss of a GRPO step on its own samples depends on advantages and lengths alone, since every
ratio is one there: of an update it is norms and gradients that tell.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from align.bench.case import EXACT, Case

SIDES = ("ours", "trl")
ROUNDED = 0.05  # under bf16 autocast, where sums are taken in another order
SMALL = 0.1
IDLE = 0.25  # share of a step's groups without an advantage, which we leave out and TRL computes


def told(case: Case, result: dict[str, Any]) -> dict[str, str]:
    """`differs`: why there is no ratio, empty where there is; nothing for what has no measure."""
    if case.kind == "scoring":
        return {"differs": _verdicts(result)}
    if case.kind == "step":
        return {"differs": _idle(result)}
    if case.kind not in EXACT:
        return {}
    tolerance = EXACT[case.kind] if case.precision == "fp32" else ROUNDED
    said = result.get("check", {}).get("differs")
    return {"differs": said or _turns(result, tolerance)}


def difference(sides: dict[str, Any], tolerance: float) -> str:
    """Why one timing of the two was not of the same work; empty where it was."""
    ours, theirs = sides["ours"], sides["trl"]
    for name, floor in (("losses", SMALL), ("norms", 0.0)):
        if len(ours[name]) != len(theirs[name]):
            return f"{len(ours[name])} {name} against {len(theirs[name])}"
        for step, (one, other) in enumerate(zip(ours[name], theirs[name], strict=True), 1):
            apart = abs(one - other) / max(abs(other), floor, 1e-12)
            if not apart <= tolerance:
                return f"{name} of step {step}: {one:.7g} against {other:.7g}, {apart:.1e} apart"
    if (apart := sides.get("distance", 0.0)) > tolerance:
        return f"gradients are {apart:.1e} apart"
    return ""


def _turns(result: dict[str, Any], tolerance: float) -> str:
    """The first alternation whose two timings were not of the same work."""
    pairs = zip(result["ours"]["timings"], result["trl"]["timings"], strict=True)
    for turn, (ours, theirs) in enumerate(pairs, 1):
        if said := difference({"ours": ours, "trl": theirs}, tolerance):
            return f"alternation {turn}: {said}"
    return ""


def _idle(result: dict[str, Any]) -> str:
    """Whether a side drew too many groups that teach nothing."""
    for side in SIDES:
        share = median(one["idle_groups"] for one in result[side]["timings"])
        if share > IDLE:
            return f"{side}: {share:.0%} of the groups have no advantage, more than {IDLE:.0%}"
    return ""


def _verdicts(result: dict[str, Any]) -> str:
    """Which verdicts are not the same; they leave the result, which they would swell."""
    odd: list[str] = []
    pairs = zip(result["ours"]["timings"], result["trl"]["timings"], strict=True)
    for turn, (ours, theirs) in enumerate(pairs):
        both = zip(ours.pop("verdicts"), theirs.pop("verdicts"), strict=True)
        odd += [f"turn {turn}, completion {i}" for i, (a, b) in enumerate(both) if a != b]
    return f"other verdicts: {', '.join(odd[:8])}" if odd else ""
