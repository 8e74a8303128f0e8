"""Alternations and ratios.

The ratio is the median over alternations of theirs / ours, each pair taken one right after the
other, now the one and now the other first. The first timing of each side is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from align.bench.case import EXACT, Case, Settings
from align.bench.same import SIDES, difference, told
from align.bench.start import launched
from align.bench.wire import Worker, WorkerError

Tick = Callable[[str], None]

TRIAL = 3  # timings by which one of TRL's settings is judged, the first thrown away
HOPELESS = 1.2  # so many times the fastest so far, and a setting is not timed again
DISTURBED = 0.85  # of the cores that a side has in its middle timing: something else had the rest


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
        """Seconds and memory of TRL under each of these settings, or why it does not work. A whole
        step's are those of its training and of one sampling, the same for all that sample alike.
        """
        tried: list[dict[str, Any]] = []
        best, sampling = float("inf"), dict[str, float]()
        for one in settings:
            about: dict[str, Any] = {"settings": one.__dict__}
            try:
                self.open("trl", replace(case, peer=one, trial=True))
                first = self.go("trl", case)
                if case.kind == "step":
                    sampling.setdefault(one.generation, first["parts"]["sample"])
                more = sampling.get(one.generation, 0.0)
                runs = [self.go("trl", case)]
                while len(runs) < TRIAL - 1 and runs[0]["seconds"] + more <= HOPELESS * best:
                    runs.append(self.go("trl", case))
                self.close("trl")
                for _ in range(TRIAL - 1 - len(runs)):
                    self.tick(f"{case.name}, trl: {one.name} is not the fastest")
                timings = [run["seconds"] + more for run in runs]
                about |= {"seconds": median(timings), "timings": timings}
                about |= {name: runs[-1][name] for name in ("peak_mib", "above_mib")}
                best = min(best, about["seconds"])
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


def summary(timings: list[dict[str, Any]]) -> dict[str, Any]:
    """Median seconds, greatest memory, the most processor seconds used while waiting; and where
    they are known the median of cores used, and the turns that had far fewer.
    """
    found: dict[str, Any] = {
        "seconds": median(one["seconds"] for one in timings),
        "peak_mib": max(one["peak_mib"] for one in timings),
        "peak_since": timings[0]["peak_since"],
        "above_mib": max(one["above_mib"] for one in timings),
        "waited": max(one["waited"] for one in timings),
    }
    if "cores" in timings[0]:
        cores = [one["cores"] for one in timings]
        found["cores"] = median(cores)
        few = DISTURBED * found["cores"]
        found["disturbed"] = [turn for turn, one in enumerate(cores) if one < few]
    return found


def ratios(sides: dict[str, Any]) -> dict[str, Any]:
    """theirs / ours of each alternation, and the median of those."""
    pairs = zip(sides["ours"]["timings"], sides["trl"]["timings"], strict=True)
    each = [theirs["seconds"] / ours["seconds"] for ours, theirs in pairs]
    return {"ratios": each, "ratio": median(each)}


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
    tried = pair.trials(case, settings) if len(settings) > 1 else []
    working = [one for one in tried if "seconds" in one]
    if tried and not working:
        raise WorkerError(f"TRL works under none of its settings: {tried[0]['error']}")
    chosen = settings[0]
    if working and fastest:
        chosen = Settings(**min(working, key=lambda one: one["seconds"])["settings"])
    case = replace(case, peer=chosen)
    if check:
        result["check"] = pair.check(case)
    result |= {"case": case.plain(), "tried": tried} | pair.alternate(case, alternations)
    result |= told(case, result)
    if result.get("differs"):
        del result["ratio"]
    return result
