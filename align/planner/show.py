"""Plans as tables, and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from align.config import Stage
from align.planner.cures import FSDP, Cure, cheapest
from align.planner.memory import GIB, Machine
from align.planner.stage import Plan
from align.terminal.progress import duration


def _in_gib(size: float) -> str:
    """Without the unit, which stands above the column or beside it."""
    return f"{size / GIB:.2f}"


def show(plan: Plan, found: Sequence[Cure], command: str, console: Console) -> None:
    """command: what runs the stage with the cheapest change that fits."""
    config, peak = plan.config, plan.memory.peak
    names = list(dict.fromkeys(name for phase in plan.memory.phases for name in phase.parts))
    table = Table(title=f"{config.name} ({config.kind}) from {config.model}: GiB a process",
                  title_justify="left")  # fmt: skip
    table.add_column("part")
    for phase in plan.memory.phases:
        table.add_column(phase.name, justify="right", style="bold" if phase is peak else "")
    for name in names:
        parts = [phase.parts.get(name, 0.0) for phase in plan.memory.phases]
        table.add_row(name, *(_in_gib(part) if part else "" for part in parts))
    table.add_section()
    table.add_row("sum", *(_in_gib(phase.bytes) for phase in plan.memory.phases))
    console.print(table)
    for line in lines(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if found:
        console.print(_cured(found, plan))
    console.print(command, markup=False, highlight=False, soft_wrap=True)


def lines(plan: Plan) -> list[str]:
    """What is said besides the tables."""
    load, speed = plan.load, plan.speed
    peak = plan.memory.peak
    lengths = "the data's own lengths" if plan.known else (
        "every sequence as long as it may be: data or tokenizer are not at hand"
    )  # fmt: skip
    room = _in_gib(plan.machine.memory)
    verdict = f"fits in {room} GiB" if plan.fits else f"does not fit in {room} GiB"
    return [
        f"peak {_in_gib(peak.bytes)} GiB in `{peak.name}`; {verdict} ({where(plan.machine)})",
        f"largest pack {load.largest.tokens:,} tokens, {load.largest.trained:,} scored ({lengths})",
        f"about {duration(speed.seconds)} a step (sample {duration(speed.sample)}, train "
        f"{duration(speed.train)}) at {speed.rate / 1e12:g} TFLOP/s a process, an assumption: "
        "measured ones go in with --tflops",
    ]


def where(machine: Machine) -> str:
    if not machine.gpus:
        return "one process on the CPU"
    return f"{machine.gpus} GPU(s), {'FSDP2' if machine.sharded else 'a copy on each'}"


def _cured(found: Sequence[Cure], plan: Plan) -> Table:
    title = "changes, cheapest first"
    table = Table(title=title, title_justify="left")
    for name in ("change", "peak GiB", "fits", "seconds a step", "costs"):
        table.add_column(name)
    for cure in found:
        flags = shlex.join(cure.flags)
        if cure.plan.machine.sharded and not plan.machine.sharded:
            flags = f"{flags} (FSDP2)".strip()
        table.add_row(
            flags,
            _in_gib(cure.plan.memory.peak.bytes),
            "yes" if cure.plan.fits else "no",
            f"{cure.plan.speed.seconds:.1f}",
            cure.costs,
        )
    return table


def typed(plan: Plan, found: Sequence[Cure], *, recipe: str, given: Sequence[str]) -> str:
    """The command that runs the stage as it is if it fits, else with the cheapest change."""
    cure = None if plan.fits else cheapest(list(found))
    if cure is None and not plan.fits:
        return "nothing here makes it fit: a smaller model, shorter sequences, or more memory"
    machine = cure.plan.machine if cure else plan.machine
    changes = cure.flags if cure else ()
    flags = [*_without(given, changes), *changes]
    start = ["python"]
    if machine.gpus:
        start = ["accelerate", "launch"]
        if machine.gpus > 1:
            file = FSDP if machine.sharded else "recipes/accelerate/ddp.yaml"
            start += ["--config_file", file, "--num_processes", str(machine.gpus)]
    script = f"scripts/{plan.config.kind}.py"
    return shlex.join([*start, script, "--recipe", recipe, "--stage", plan.config.name, *flags])


def _without(given: Sequence[str], changes: Sequence[str]) -> list[str]:
    """The flags and their values that the changes leave as they are."""
    kept: list[str] = []
    keeps = True
    for word in given:
        if word.startswith("--"):
            keeps = word.partition("=")[0].replace("_", "-") not in changes
        if keeps:
            kept.append(word)
    return kept


def as_json(plan: Plan, found: Sequence[Cure], command: str) -> dict[str, Any]:
    """Sizes in bytes."""
    peak = plan.memory.peak
    config: Stage = plan.config
    return {
        "stage": config.name,
        "kind": config.kind,
        "model": config.model,
        "processes": plan.machine.processes,
        "gpus": plan.machine.gpus,
        "memory": round(plan.machine.memory),
        "peak": round(peak.bytes),
        "phase": peak.name,
        "parts": {name: round(size) for name, size in peak.parts.items()},
        "phases": {
            phase.name: {name: round(size) for name, size in phase.parts.items()}
            for phase in plan.memory.phases
        },
        "pack": {"tokens": plan.load.largest.tokens, "scored": plan.load.largest.trained},
        "lengths": "data" if plan.known else "longest",
        "fits": plan.fits,
        "seconds": {"sample": plan.speed.sample, "train": plan.speed.train},
        "flops": plan.speed.rate,
        "changes": [
            {
                "flags": list(cure.flags),
                "fsdp2": cure.plan.machine.sharded,
                "peak": round(cure.plan.memory.peak.bytes),
                "fits": cure.plan.fits,
                "seconds": cure.plan.speed.seconds,
            }
            for cure in found
        ],
        "command": command,
    }
