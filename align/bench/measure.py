"""Alternations, ratios, and whether both sides did the same work.

The ratio is the median over alternations of theirs / ours, each pair taken one right after the
other, now the one and now the other first. The first timing of each side is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from align.bench.case import Case, Settings
from align.bench.start import launched
from align.bench.wire import Worker, WorkerError

Tick = Callable[[str], None]

# How far losses and gradient norms may be apart, relative (losses: to 1 at least).
EXACT = {"update": 1e-5, "dpo": 1e-4, "reward-model": 1e-4, "sft": 1e-4}
ROUNDED = 0.05  # under bf16 autocast, where sums are taken in another order
TRIAL = 2  # timings by which one of TRL's settings is judged, the first thrown away


class Pair:
    """Our worker and TRL's."""

    def __init__(self, ours: Worker, trl: Worker, *, tick: Tick) -> None:
        self.workers = {"ours": ours, "trl": trl}
        self.tick = tick
        self.busy: set[str] = set()

    def open(self, side: str, case: Case) -> dict[str, Any]:
        opened = self.workers[side].ask("open", case=case.plain())
        self.busy.add(side)
        return opened

    def go(self, side: str, case: Case, **more: Any) -> dict[str, Any]:
        try:
            done = self.workers[side].ask("go", **more)
        except WorkerError:
            self.busy.discard(side)
            raise
        self.tick(f"{case.name}, {side}: {done['seconds']:.2f} s")
        return done

    def close(self, side: str) -> None:
        self.busy.discard(side)
        self.workers[side].ask("close")

    def leave(self) -> None:
        """Close what a case that failed has left open."""
        for side in tuple(self.busy):
            self.close(side)

    def check(self, case: Case) -> dict[str, Any]:
        """One optimizer step of each in float32: losses, norms, and how far the gradients are
        apart, |ours - theirs| / |theirs|.
        """
        exact = replace(case, precision="fp32")
        found: dict[str, Any] = {}
        files = {side: str(Path(case.scratch) / f"gradient-{side}.safetensors") for side in SIDES}
        for side in SIDES:
            self.open(side, exact)
            done = self.go(side, exact, gradient=files[side])
            self.close(side)
            found[side] = {name: done[name] for name in ("losses", "norms")}
        found |= self.workers["trl"].once("distance", ours=files["ours"], theirs=files["trl"])
        for file in files.values():
            Path(file).unlink()
        return found | {"differs": difference(found, EXACT[case.kind])}

    def trials(self, case: Case, settings: Sequence[Settings]) -> list[dict[str, Any]]:
        """Seconds and memory of TRL under each of these settings, or why it does not work."""
        tried = []
        for one in settings:
            about: dict[str, Any] = {"settings": one.__dict__}
            try:
                self.open("trl", replace(case, peer=one))
                runs = [self.go("trl", case) for _ in range(TRIAL)]
                self.close("trl")
                about |= {name: runs[-1][name] for name in ("seconds", "peak_mib", "above_mib")}
            except WorkerError as error:
                about["error"] = str(error)
            tried.append(about)
        return tried

    def alternate(self, case: Case, alternations: int) -> dict[str, Any]:
        """Both sides' timings and what was compared."""
        sides: dict[str, dict[str, Any]] = {}
        for side in SIDES:
            sides[side] = {"opened": self.open(side, case), "timings": []}
            self.go(side, case, turn=-1)
        for turn in range(alternations):
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                sides[side]["timings"].append(self.go(side, case, turn=turn))
        for side in SIDES:
            self.close(side)
            sides[side] |= summary(sides[side]["timings"])
        return sides | ratios(sides)


SIDES = ("ours", "trl")


def summary(timings: list[dict[str, Any]]) -> dict[str, Any]:
    """Median seconds, greatest memory, and the largest share of a core used while waiting."""
    return {
        "seconds": median(one["seconds"] for one in timings),
        "peak_mib": max(one["peak_mib"] for one in timings),
        "above_mib": max(one["above_mib"] for one in timings),
        "waited": max(one["waited"] for one in timings),
    }


def ratios(sides: dict[str, Any]) -> dict[str, Any]:
    """theirs / ours of each alternation, and the median of those."""
    pairs = zip(sides["ours"]["timings"], sides["trl"]["timings"], strict=True)
    each = [theirs["seconds"] / ours["seconds"] for ours, theirs in pairs]
    return {"ratios": each, "ratio": median(each)}


def difference(sides: dict[str, Any], tolerance: float) -> str:
    """Why the two did not do the same work; empty where they did."""
    ours, theirs = sides["ours"], sides["trl"]
    for name, floor in (("losses", 1.0), ("norms", 0.0)):
        if len(ours[name]) != len(theirs[name]):
            return f"{len(ours[name])} {name} against {len(theirs[name])}"
        for step, (one, other) in enumerate(zip(ours[name], theirs[name], strict=True), 1):
            apart = abs(one - other) / max(abs(other), floor, 1e-12)
            if not apart <= tolerance:
                return f"{name} of step {step}: {one:.7g} against {other:.7g}, {apart:.1e} apart"
    if (apart := sides.get("distance", 0.0)) > tolerance:
        return f"gradients are {apart:.1e} apart"
    return ""


def alone(pair: Pair, case: Case, *, alternations: int) -> dict[str, Any]:
    """Our side's timings of what TRL has no counterpart for that works everywhere."""
    opened = pair.open("ours", case)
    pair.go("ours", case)
    timings = [pair.go("ours", case) for _ in range(alternations)]
    pair.close("ours")
    ours = {"opened": opened, "timings": timings} | summary(timings)
    return {"kind": case.kind, "name": case.name, "case": case.plain(), "ours": ours}


def launches(pair: Pair, case: Case, *, alternations: int, log: Path) -> dict[str, Any]:
    """Launch to first step, one side after the other, each in a process of its own."""
    sides: dict[str, Any] = {side: {"timings": []} for side in SIDES}
    for turn in range(alternations):
        for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
            done = launched(case, side, log=log)
            pair.tick(f"{case.name}, {side}: {done['seconds']:.2f} s")
            sides[side]["timings"].append(done)
    for side in SIDES:
        timings = sides[side]["timings"]
        sides[side] |= {n: median(one[n] for one in timings) for n in ("seconds", "step")}
    about = {"kind": case.kind, "name": case.name, "case": case.plain()}
    return about | sides | ratios(sides)


def measured(
    pair: Pair, case: Case, *, settings: Sequence[Settings], fastest: bool, alternations: int,
    check: bool,
) -> dict[str, Any]:  # fmt: skip
    """Everything about a case. `ratio` is there only where both did the same work.

    settings: TRL's to try, its defaults first. fastest: compare with the fastest of them, else with
    the defaults. Raises WorkerError where a side fails.
    """
    result: dict[str, Any] = {"kind": case.kind, "name": case.name}
    case = replace(case, peer=settings[0])
    if case.kind in ("dpo", "reward-model", "sft"):
        pair.open("ours", case)  # writes the rows that the other side reads
        pair.close("ours")
    compared = case.kind in EXACT
    tried = pair.trials(case, settings) if len(settings) > 1 else []
    working = [one for one in tried if "seconds" in one]
    if tried and not working:
        raise WorkerError(f"TRL works under none of its settings: {tried[0]['error']}")
    chosen = settings[0]
    if working and fastest:
        chosen = Settings(**min(working, key=lambda one: one["seconds"])["settings"])
    case = replace(case, peer=chosen)
    if check and compared:
        result["check"] = pair.check(case)
    result |= {"case": case.plain(), "tried": tried} | pair.alternate(case, alternations)
    if case.kind == "scoring":
        result["differs"] = _verdicts(result)
    elif compared:
        tolerance = EXACT[case.kind] if case.precision == "fp32" else ROUNDED
        last = {side: result[side]["timings"][0] for side in SIDES}
        said = result.get("check", {}).get("differs") or difference(last, tolerance)
        result["differs"] = said
    if result.get("differs"):
        del result["ratio"]
    return result


def _verdicts(result: dict[str, Any]) -> str:
    """Which verdicts are not the same; they leave the result, which they would swell."""
    odd: list[str] = []
    pairs = zip(result["ours"]["timings"], result["trl"]["timings"], strict=True)
    for turn, (ours, theirs) in enumerate(pairs):
        both = zip(ours.pop("verdicts"), theirs.pop("verdicts"), strict=True)
        odd += [f"turn {turn}, completion {i}" for i, (a, b) in enumerate(both) if a != b]
    return f"other verdicts: {', '.join(odd[:8])}" if odd else ""
