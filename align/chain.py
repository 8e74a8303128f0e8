"""All stages of a recipe in order, each in its own `accelerate launch`, then evaluation and report.

A process a stage: memory and vLLM start clean. What is complete is not run again.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import psutil
import tyro

from align import folder, recipe
from align.cli import Run, fail, parse
from align.config import Evaluation, RewardModel, Stage
from align.locate import MissingError, locate
from align.recipe import Recipe
from align.references import references

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
ACCELERATE = Path(__file__).resolve().parent.parent / "recipes" / "accelerate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainRun(Run):
    """Which recipe, and how its stages are launched."""

    accelerate: Path | None = None
    """An accelerate configuration, e.g. recipes/accelerate/ddp.yaml; default: one process without
    CUDA, accelerate's own choice with it."""
    report_to: str = "none"
    """A tracker for every stage: tensorboard, wandb or trackio."""
    stage: str | None = None
    """Run this stage alone."""
    resume: bool = False
    """Always so here: what is complete is reused, what was interrupted continues."""
    check: bool = False
    """Validate every stage that can be validated yet, and stop."""


def main(doc: str) -> None:
    """Parse, then run what is left to run."""
    run, config = parse(ChainRun, lambda run: _as_config(recipe.load(run.recipe)), doc=doc)
    found = recipe.load(run.recipe)
    stages = tuple(getattr(config, _field(stage.name)) for stage in found.stages)
    if run.stage is not None:
        stages = tuple(stage for stage in stages if stage.name == run.stage)
        if not stages:
            names = ", ".join(stage.name for stage in found.stages)
            fail(f"recipe {run.recipe} has no stage called {run.stage!r} (there are: {names})")
    overridden = _overrides([_field(stage.name) for stage in found.stages] + ["evaluation"])
    missing = _missing(stages[0], run)
    if missing is not None:
        fail(missing[1])
    if run.check:
        _check(stages, run, overridden)
        return
    try:
        for stage in stages:
            folder.check_unchanged(run.folder / stage.name, stage)
    except folder.FolderError as error:
        fail(str(error))
    folder.write_recipe(run.folder, found)
    # With several stages the first one's result is what the others are held against.
    if found.evaluation is not None and len(found.stages) == 1:
        _evaluate(stages[0].model, "start", run, config.evaluation, overridden["evaluation"])
    for stage in stages:
        if folder.is_done(run.folder / stage.name):
            print(f"{run.folder / stage.name} is complete, reused", flush=True)
        else:
            _run_stage(stage, run, [*overridden[_field(stage.name)], "--resume"])
        if found.evaluation is not None and not isinstance(stage, RewardModel):  # it writes nothing
            flags = overridden["evaluation"]
            _evaluate(f"@{stage.name}", stage.name, run, config.evaluation, flags)
    _report(run)


def _check(stages: tuple[Stage, ...], run: ChainRun, overridden: dict[str, list[str]]) -> None:
    """Validate the stages whose model is there; the others' is still to be trained."""
    for stage in stages:
        missing = _missing(stage, run)
        if missing is not None:
            print(f"{stage.name} needs {missing[0]}, which is not there yet: not checked")
            continue
        _run_stage(stage, run, [*overridden[_field(stage.name)], "--check"])


def _missing(stage: Stage, run: ChainRun) -> tuple[str, str] | None:
    """The first model that the stage needs and that is not there, with what to do."""
    for reference in references(stage):
        try:
            locate(reference, run.folder, recipe=run.recipe)
        except MissingError as error:
            return reference, str(error)
    return None


def _as_config(found: Recipe) -> Any:
    """A dataclass with one field a stage, so that `--grpo.steps 3` is an override."""
    fields: list[Any] = [
        (_field(stage.name), Annotated[type(stage), tyro.conf.arg(name=stage.name)])
        for stage in found.stages
    ]
    values = {_field(stage.name): stage for stage in found.stages}
    if found.evaluation is not None:
        fields.append(("evaluation", type(found.evaluation)))
        values["evaluation"] = found.evaluation
    return dataclasses.make_dataclass("Stages", fields, frozen=True)(**values)


def _field(name: str) -> str:
    return name.replace("-", "_")


def _overrides(names: list[str]) -> dict[str, list[str]]:
    """The flags meant for each stage, as its own script takes them."""
    found: dict[str, list[str]] = {name: [] for name in names}
    target: list[str] | None = None
    for arg in sys.argv[1:]:
        if arg.startswith("--"):
            head, dot, rest = arg[2:].partition(".")
            target = found.get(_field(head)) if dot else None
            if target is not None:
                target.append("--" + rest)
        elif target is not None:
            target.append(arg)
    return found


def _run_stage(stage: Stage, run: ChainRun, flags: list[str]) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *_launcher(run)]
    command += [str(SCRIPTS / f"{stage.kind}.py"), *_common(run), "--stage", stage.name]
    command += ["--report-to", run.report_to, *flags]
    _call(command, launched=True)


def _launcher(run: ChainRun) -> list[str]:
    if run.accelerate is not None:
        return ["--config_file", str(run.accelerate)]
    return [] if _has_cuda() else ["--config_file", str(ACCELERATE / "cpu.yaml")]


def _has_cuda() -> bool:
    """Without importing torch, which takes seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return not hidden and any(Path("/dev").glob("nvidia[0-9]*"))


def _evaluate(
    model: str, label: str, run: ChainRun, config: Evaluation, overrides: list[str]
) -> None:
    located = locate(model, run.folder, recipe=run.recipe)
    if folder.evaluated(run.folder, label, config, located):
        print(f"{label} is evaluated already, reused", flush=True)
        return
    command = [sys.executable, str(SCRIPTS / "evaluate.py"), *_common(run)]
    _call([*command, "--model", model, "--label", label, *overrides], launched=False)


def _report(run: ChainRun) -> None:
    from align import report

    page = report.write(run.folder)
    print(report.table(run.folder))
    print(f"report: {page}")


def _common(run: ChainRun) -> list[str]:
    return ["--recipe", run.recipe, "--out", str(run.folder)]


def _call(command: list[str], *, launched: bool) -> None:
    """Run to the end, passing SIGTERM on; end with the child's own exit code if it fails.

    launched: the child is a launcher. It would die of SIGTERM before its own child has saved a
    checkpoint, so that one is told instead, and waited for.
    """
    child = subprocess.Popen(command)
    asked = False

    def pass_on(*_: Any) -> None:
        nonlocal asked
        asked = True
        process = psutil.Process(child.pid)
        for told in (launched and process.children()) or [process]:
            told.terminate()

    previous = signal.signal(signal.SIGTERM, pass_on)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        code = child.wait()  # the terminal has told the child already
    finally:
        signal.signal(signal.SIGTERM, previous)
    if asked:  # also where the child was about to end well: no next stage is begun
        raise SystemExit(128 + signal.SIGTERM)
    if code:
        raise SystemExit(code if code > 0 else 128 - code)
