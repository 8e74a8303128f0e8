"""What a recipe's stages will need: memory by part, time a step, what fits, and what would.

    python scripts/plan.py --recipe smollm2
    python scripts/plan.py --recipe qwen0.5b --gpus 1 --memory 24
    python scripts/plan.py --recipe smollm2 --stage sft --compute.token-budget 4096 --memory 8
    python scripts/plan.py --recipe llama1b-rlhf --gpus 8 --memory 80 --json

From the configuration alone: no weights are read, nothing is computed. Ends with 0 where all fits,
with 1 where something does not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import psutil
import tyro
from rich.console import Console

import data
from align import recipe as recipes
from align.cli import Run, fail, parse
from align.config import Stage
from align.files.trusted import ModelError
from align.planner.cures import cures
from align.planner.memory import GIB, Machine
from align.planner.rows import lengths
from align.planner.shape import ShapeError
from align.planner.show import as_json, show, typed
from align.planner.stage import Loads, Plan, models_of, planned


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanRun(Run):
    """Which recipe, and on what."""

    stage: str | None = None
    """This stage alone; its values are then plain flags (--compute.token-budget 2048)."""
    gpus: int = 0
    """GPUs, a process on each; 0: one process on the CPU."""
    memory: float = 0.0
    """GB of each GPU (80), or of the machine without one; 0: this machine's."""
    cpu: bool = False
    """As --gpus 0."""
    fsdp2: bool = False
    """Weights, gradients and moments shared out over the GPUs."""
    config: Path | None = None
    """A config.json that stands for every model, where theirs are not at hand."""
    assume_longest: bool = False
    """Do not read the data: every sequence is as long as it may be. Needs no torch."""
    tflops: float = 0.0
    """10^12 operations a second that a process reaches, where you measured them."""
    json: bool = False
    """Print JSON instead of tables."""


def main() -> None:
    """Plan and print; exit code 0 if all stages fit, 1 if one does not, 2 for a mistake."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read where the hub's libraries are first imported
    args = _spread(sys.argv[1:])
    run, config = parse(PlanRun, _config, doc=__doc__ or "", args=args)
    stages = recipes.load(run.recipe).stages
    if run.stage is not None:
        place = [one.name for one in stages].index(run.stage)
        chosen = {place: config}
    else:
        stages = tuple(getattr(config, _field(one.name)) for one in stages)
        chosen = dict(enumerate(stages))
    machine = _machine(run)
    try:
        found = [_looked_at(one, stages[:i], machine, run) for i, one in chosen.items()]
    except (ShapeError, ModelError, data.DataError) as error:
        fail(str(error))
    given = _given(args, whole=run.stage is not None)
    _print(run, found, given)
    raise SystemExit(0 if all(plan.fits for plan, _ in found) else 1)


def _looked_at(
    config: Any, before: Sequence[Stage], machine: Machine, run: PlanRun
) -> tuple[Plan, list[Any]]:
    models = models_of(config, before, file=run.config)
    rows = None if run.assume_longest else lengths(config, before)
    rate, loads = run.tflops * 1e12 or None, Loads(rows)

    def again(changed: Any, on: Machine) -> Plan:
        return planned(changed, models, on, rows, rate=rate, loads=loads)

    plan = again(config, machine)
    return plan, cures(plan, again)


def _print(
    run: PlanRun, found: Sequence[tuple[Plan, list[Any]]], given: Callable[[str], list[str]]
) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150)
    rows = []
    for plan, tried in found:
        flags = given(plan.config.name)
        command = typed(plan, tried, recipe=run.recipe, given=flags)
        rows.append(as_json(plan, tried, command))
        if not run.json:
            show(plan, [] if plan.fits else tried, command, console)
            console.print()
    if run.json:
        print(json.dumps({"recipe": run.recipe, "stages": rows}, indent=2))


def _machine(run: PlanRun) -> Machine:
    gpus = 0 if run.cpu else run.gpus
    for flag, value in (("gpus", gpus), ("memory", run.memory), ("tflops", run.tflops)):
        if not 0 <= value < math.inf:
            fail(f"--{flag} {value:g}: it must be a number of at least 0")
    if gpus and not run.memory:
        fail("--gpus needs --memory: the GB of each, such as --memory 80")
    if run.fsdp2 and gpus < 2:
        fail("--fsdp2 needs --gpus 2 or more")
    if run.memory:
        # Sold as GB, counted by the driver in GiB; a CPU's by the system.
        return Machine(gpus=gpus, memory=run.memory * GIB, sharded=run.fsdp2)
    return Machine(gpus=0, memory=psutil.virtual_memory().total)


def _config(run: PlanRun) -> Any:
    """The stage asked for, or a dataclass with a field a stage. Raises RecipeError."""
    found = recipes.load(run.recipe)
    if run.stage is not None:
        names = [one.name for one in found.stages]
        if run.stage not in names:
            raise recipes.RecipeError(
                f"recipe {found.name} has no stage called {run.stage!r} (there are: "
                f"{', '.join(names)})"
            )
        return found.stages[names.index(run.stage)]
    fields: list[Any] = [
        (_field(one.name), Annotated[type(one), tyro.conf.arg(name=one.name)])
        for one in found.stages
    ]
    values = {_field(one.name): one for one in found.stages}
    return dataclasses.make_dataclass("Stages", fields, frozen=True)(**values)


def _spread(args: Sequence[str]) -> list[str]:
    """Without --stage a flag of a stage that names none is meant for every stage that has it."""
    names = [arg.partition("=")[0] for arg in args]
    if "--stage" in names or "--recipe" not in names:
        return list(args)
    place = names.index("--recipe")
    name = args[place].partition("=")[2] or (args[place + 1] if place + 1 < len(args) else "")
    try:
        stages = recipes.load(name).stages
    except recipes.RecipeError:
        return list(args)  # said where everything is parsed
    own = {field.name for field in dataclasses.fields(PlanRun)}
    named = {_field(one.name) for one in stages}
    found: list[str] = []
    for flag, *values in _flags(args):
        head = _field(flag[2:].partition("=")[0].partition(".")[0])
        meant = [one.name for one in stages if hasattr(one, head)]
        if head in own or head in named or not meant:
            found += [flag, *values]
        for one in meant if head not in own | named else ():
            found += [f"--{one}.{flag[2:]}", *values]
    return found


def _flags(args: Sequence[str]) -> list[list[str]]:
    """Each flag with its values."""
    found: list[list[str]] = []
    for arg in args:
        if arg.startswith("--") or not found:
            found.append([arg])
        else:
            found[-1].append(arg)
    return found


def _given(args: Sequence[str], *, whole: bool) -> Callable[[str], list[str]]:
    """The flags meant for a stage, as its own script takes them. whole: all are."""
    own = {_field(field.name) for field in dataclasses.fields(PlanRun)}

    def of(stage: str) -> list[str]:
        found: list[str] = []
        for flag, *values in _flags(args):
            head, dot, rest = flag[2:].partition(".")
            if whole and _field(head.partition("=")[0]) not in own:
                found += [flag, *values]
            elif not whole and dot and _field(head) == _field(stage):
                found += [f"--{rest}", *values]
        return found

    return of


def _field(name: str) -> str:
    return name.replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    main()
