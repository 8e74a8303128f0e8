"""A whole bench: case after case, what is known so far on disk after each."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from align.bench import show
from align.bench.case import Case, Settings
from align.bench.measure import TRIAL, Pair, alone, launches, measured
from align.bench.plan import Arguments, Planned, planned
from align.bench.shapes import model_folder
from align.bench.start import LaunchError
from align.bench.wire import Worker, WorkerError
from align.files.folder import made

# Where there is no terminal, rich takes 80 columns: too few for the tables.
BUSY = 0.25  # of the cores, in the minute before anything is measured
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def run(arguments: Arguments) -> int:
    """Measure, write bench.json, tables and plot. Returns the exit code: 1 where a case failed or
    its sides did different work. Raises FolderError, MissingError.
    """
    with TemporaryDirectory(prefix=".scratch-", dir=made(arguments.out)) as scratch:
        model = model_folder(arguments, Path(scratch))
        plan = planned(arguments, model=model, scratch=Path(scratch))
        report = _measured(plan, arguments)
    return _end(report, arguments)


def _measured(plan: list[Planned], arguments: Arguments) -> dict[str, Any]:
    """What is found out, case after case."""
    console.print("starting both sides (half a minute)")
    log = arguments.out / "workers.log"
    log.unlink(missing_ok=True)
    options = {"threads": arguments.threads, "device": arguments.device, "log": log}
    ours, trl = Worker("ours", **options), Worker("trl", **options)
    try:
        report = {"about": _about(arguments, trl), "cases": []}
        if (load := os.getloadavg()[0]) > BUSY * (os.cpu_count() or 1):
            console.print(f"the machine is busy with something else (load {load:.1f})")
        with _bar() as bar:
            task = bar.add_task("starting", total=sum(_timings(one, arguments) for one in plan))

            def tick(text: str) -> None:
                bar.update(task, advance=1, description=text)
                if not console.is_terminal:  # where no bar is drawn
                    now = bar.tasks[task]
                    left = f"{now.time_remaining / 60:.1f} min left" if now.time_remaining else ""
                    console.print(f"{now.completed:.0f}/{now.total:.0f}  {text}  {left}")

            pair = Pair(ours, trl, tick=tick)
            _all(plan, pair, arguments, report)
    finally:
        for worker in (ours, trl):
            worker.end()
    return report


def _all(plan: list[Planned], pair: Pair, arguments: Arguments, report: dict[str, Any]) -> None:
    """Every case, one after the other; a case that fails does not end the others."""
    best: dict[int, Settings] = {}
    for one in plan:
        case, settings = one.case, one.settings
        if case.kind == "update" and len(settings) == 1 and arguments.trials == "first":
            settings = (best.get(case.group, settings[0]),)
        try:
            found = _one(pair, case, settings, one, arguments)
            if case.kind == "update" and found["tried"]:
                best[case.group] = Settings(**found["case"]["peer"])
        except (WorkerError, LaunchError) as error:
            pair.leave()
            found = {"kind": case.kind, "name": case.name, "failed": str(error)}
        report["cases"].append(show.reckoned(found, arguments.peak_tflops))
        show.save(report, arguments.out)
        console.print(show.line(found))


def _one(
    pair: Pair, case: Case, settings: Sequence[Settings], one: Planned, arguments: Arguments
) -> dict[str, Any]:
    count = arguments.alternations
    if case.kind == "sync":
        return alone(pair, case, alternations=count)
    if case.kind == "start":
        return launches(pair, case, alternations=arguments.launches, log=pair.workers["ours"].log)
    return measured(
        pair, case, settings=settings, fastest=one.fastest, alternations=count, check=one.check
    )


def _end(report: dict[str, Any], arguments: Arguments) -> int:
    for table in show.tables(report):
        console.print(table)
    show.plot(report, arguments.out)
    show.save(report, arguments.out)
    console.print(f"wrote {arguments.out / 'bench.json'}")
    bad = [one["name"] for one in report["cases"] if one.get("failed") or one.get("differs")]
    if bad:
        console.print(f"no ratio for: {'; '.join(bad)}")
    return 1 if bad else 0


def _timings(one: Planned, arguments: Arguments) -> int:
    """Timings of a case, the ones thrown away too: what the bar counts."""
    if one.case.kind == "start":
        return 2 * arguments.launches
    if one.case.kind == "sync":
        return arguments.alternations + 1
    trials = TRIAL * len(one.settings) if len(one.settings) > 1 else 0
    return 2 * (arguments.alternations + 1) + trials + 2 * one.check


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
    )


def _about(arguments: Arguments, worker: Worker) -> dict[str, Any]:
    versions = worker.once("about")
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(arguments).items()}
    return {
        "command": " ".join(["python", *sys.argv]),
        "arguments": plain | {"out": str(arguments.out)},
        "versions": versions,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "system": platform.platform(),
        },
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor()
