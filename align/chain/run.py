"""The command: parse, plan, and run what is left to run, then evaluate and report."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

import data
from align import recipe
from align.chain.launch import Launcher, call
from align.chain.plan import Node, missing, plan
from align.chain.record import Record, is_begun, set_aside
from align.cli import Run, fail, parse
from align.config import Evaluation, Stage
from align.files import folder
from align.files.folder import FolderError
from align.files.locate import MissingError, locate
from align.files.lock import locked, mark_children
from align.processes.interrupt import end_on_interrupt
from align.recipe import Recipe

PATIENCE = 120.0  # seconds in which a stage whose chain was killed has written its checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainRun(Run):
    """Which recipe, what of it, and how its stages are launched."""

    only: str | None = None
    """This stage alone; what it reads must be there."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Run this stage again and everything that reads what it writes, changed or not."""
    list: bool = False
    """Say what would run and why, evaluations too, and stop."""
    dry_run: bool = False
    """Print the commands that would run, and stop."""
    check: bool = False
    """Validate every stage as far as its input is there, and stop."""
    skip_trial: bool = False
    """Do not sample, score and compute a few rows before a stage's first step."""
    accelerate: Path | None = None
    """An accelerate configuration, e.g. recipes/accelerate/ddp.yaml; default: one process without
    CUDA, accelerate's own choice with it."""
    report_to: str = "none"
    """A tracker for every stage that trains: tensorboard, wandb or trackio."""


def main(doc: str) -> None:
    """Parse, then run what is left to run."""
    end_on_interrupt()
    if not sys.stderr.isatty():  # libraries' bars, which fill a log
        os.environ.setdefault("TQDM_DISABLE", "1")
    run, config = parse(ChainRun, lambda run: _as_config(recipe.load(run.recipe)), doc=doc)
    found = recipe.load(run.recipe)
    flags = _overrides([_field(one.name) for one in (*found.stages, *found.evaluations)])
    try:
        Chain(run, _overridden(found, config), flags).run()
    except (recipe.RecipeError, MissingError, data.DataError, FolderError) as error:
        fail(str(error))


class Chain:
    """A recipe's stages in one run folder. found: the recipe with the overrides; flags: these, for
    each stage and evaluation.
    """

    def __init__(self, run: ChainRun, found: Recipe, flags: dict[str, list[str]]) -> None:
        self.asked, self.recipe, self.flags = run, found, flags
        self.stages = _chosen(found, run)
        self.out, self.evaluations = run.folder, found.evaluations
        self.launcher = Launcher(
            recipe=run.recipe, out=run.folder, report_to=run.report_to, accelerate=run.accelerate
        )

    def run(self) -> None:
        """Look, or run. Raises MissingError, DataError, FolderError for what the user can mend."""
        self._check_start()
        if self.asked.check:
            self._check()
        elif self.asked.list or self.asked.dry_run:
            self._show(self._plan())
        else:
            with locked(self.out):
                self._wait_for_former()
                self._run(self._plan())

    def _plan(self) -> list[Node]:
        asked = self.asked.from_
        again = [asked] if asked and not is_begun(self.out, asked) else []
        return plan(self.stages, self.out, recipe=self.recipe.name, again=again)

    def _run(self, nodes: Sequence[Node]) -> None:
        for name, into in set_aside(self.out, nodes).items():
            print(f"{self.out / name} runs again; what it held is in {into}")
        for node in nodes:
            print(line(node), flush=True)
        todo = [node for node in nodes if node.action != "reuse"]
        if not todo and not self._unanswered() and (self.out / "report.html").is_file():
            print(f"nothing to do; report: {self.out / 'report.html'}")
            return
        record = Record(self.out, self.recipe, nodes, begun=self.asked.from_ or "")
        folder.write_recipe(self.out, self.recipe)
        mark_children()
        if len(self.recipe.stages) == 1:
            self._evaluate(self.stages[0].model, "start")
        for node in nodes:
            begun = time.perf_counter()
            if node in todo:
                call(self._command(node.stage), launched=self.launcher.launches)
            record.done(node, time.perf_counter() - begun if node in todo else None)
            if node.stage.writes == "policy":
                self._evaluate(f"@{node.stage.name}", node.stage.name)
        record.finished()
        self._report()

    def _check_start(self) -> None:
        """That what the first stage reads is there; with --only, what that one reads."""
        problem = missing(self.stages[0], self.out, recipe=self.recipe.name)
        if problem is not None:
            fail(problem)

    def _wait_for_former(self) -> None:
        """What a killed chain left at work saves a checkpoint and ends; see `align.files.lock`."""
        labels = [f"evaluations/.{stage.name}" for stage in self.stages]
        for name in (*(stage.name for stage in self.stages), *labels):
            if not (self.out / name).is_dir():
                continue
            try:
                with locked(self.out / name):
                    pass
            except FolderError:
                print(f"waiting for what is still at work in {self.out / name}", flush=True)
                with locked(self.out / name, wait=PATIENCE):
                    pass

    def _show(self, nodes: Sequence[Node]) -> None:
        if len(self.recipe.stages) == 1:
            self._show_evaluations(self.stages[0].model, "start", changes=False)
        for node in nodes:
            print(line(node))
            changes = node.action != "reuse"
            if self.asked.dry_run and changes:
                print("    " + shlex.join(self._command(node.stage)))
            if node.stage.writes == "policy":
                self._show_evaluations(f"@{node.stage.name}", node.stage.name, changes=changes)

    def _show_evaluations(self, model: str, label: str, *, changes: bool) -> None:
        """changes: whether the model will be another than what is there, if any is."""
        for evaluation in self.evaluations:
            reused = not changes and self._answered(model, label, evaluation)
            print(f"{'reuse' if reused else 'run':>9}  {_evaluating(label, evaluation)}")
            if self.asked.dry_run and not reused:
                print("    " + shlex.join(self._evaluation(model, label, evaluation)))

    def _check(self) -> None:
        """Validate the stages whose input is there, of the others all but the model."""
        mark_children()
        for stage in self.stages:
            problem = missing(stage, self.out, recipe=self.recipe.name)
            if problem is None:
                checked = [*self._command(stage, resume=False), "--check"]
                call(checked, launched=self.launcher.launches)
            elif data.from_stages(stage):
                print(f"{stage.name}: not checked, as its data is still to be made")
            else:
                self._check_foreseen(stage)
        print("checked: nothing stands in the way of this run", flush=True)

    def _check_foreseen(self, stage: Stage) -> None:
        from align.stages import MISTAKES, Launch  # torch only now
        from align.stages.foreseen import check_foreseen

        launch = Launch(
            recipe=self.recipe.name, out=self.out, resume=False, check=True, report_to="none"
        )
        try:
            count = check_foreseen(stage, self.recipe.stages, launch)
        except MISTAKES as error:
            fail(f"{stage.name}: {error}")
        print(f"{stage.name}: its {count:,} rows fit; its model is still to be trained", flush=True)

    def _command(self, stage: Stage, *, resume: bool = True) -> list[str]:
        flags = self.flags[_field(stage.name)]
        if self.asked.skip_trial:
            flags = [*flags, "--skip-trial"]
        return self.launcher.stage(stage, [*flags, "--resume"] if resume else flags)

    def _unanswered(self) -> list[tuple[str, Evaluation]]:
        """Labels and evaluations without a result of the weights as they are."""
        stages = [stage for stage in self.stages if stage.writes == "policy"]
        return [
            (stage.name, evaluation)
            for stage in stages
            for evaluation in self.evaluations
            if not self._answered(f"@{stage.name}", stage.name, evaluation)
        ]

    def _answered(self, model: str, label: str, evaluation: Evaluation) -> bool:
        located = locate(model, self.out, recipe=self.recipe.name)
        return folder.evaluated(self.out, label, evaluation, located)

    def _evaluate(self, model: str, label: str) -> None:
        for evaluation in self.evaluations:
            if self._answered(model, label, evaluation):
                print(f"{label}: {evaluation.name} is there already, reused", flush=True)
                continue
            print(_evaluating(label, evaluation), flush=True)
            call(self._evaluation(model, label, evaluation), launched=False)

    def _evaluation(self, model: str, label: str, evaluation: Evaluation) -> list[str]:
        flags = self.flags[_field(evaluation.name)]
        return self.launcher.evaluation(model, label, evaluation, flags)

    def _report(self) -> None:
        from align import report

        page = report.write(self.out)
        print(report.table(self.out))
        print(f"report: {page}")


def line(node: Node) -> str:
    """A stage and what becomes of it, in one line."""
    below = f" <- {', '.join(node.parents)}" if node.parents else ""
    return f"{node.action:>9}  {node.stage.name}{below}: {node.why}"


def _evaluating(label: str, evaluation: Evaluation) -> str:
    """Which problems a model is asked, in one line."""
    count = f"at most {evaluation.limit:,}" if evaluation.limit else "all"
    name, source = evaluation.name, evaluation.data.name
    of = "" if name == source else f" ({source})"
    return f"{label}: evaluating on {name}{of}, {count} problems"


def _overridden(found: Recipe, config: Any) -> Recipe:
    """The recipe with the values given, checked once more. Raises RecipeError."""
    for one in (*found.stages, *found.evaluations):
        given = getattr(config, _field(one.name)).name
        if given != one.name:
            raise recipe.RecipeError(f"--{one.name}.name {given}: a chain's names stay as they are")
    return dataclasses.replace(
        found,
        stages=tuple(getattr(config, _field(stage.name)) for stage in found.stages),
        evaluations=tuple(getattr(config, _field(one.name)) for one in found.evaluations),
    )


def _chosen(found: Recipe, run: ChainRun) -> list[Stage]:
    """The stages asked for; ends with a message where a name is none of them."""
    names = [stage.name for stage in found.stages]
    for name in (run.only, run.from_):
        if name is not None and name not in names:
            fail(f"recipe {run.recipe} has no stage called {name!r} (there are: "
                 f"{', '.join(names)})")  # fmt: skip
    if run.only and run.from_:
        fail("--only runs one stage and --from several: give one of them")
    return [stage for stage in found.stages if run.only in (None, stage.name)]


def _as_config(found: Recipe) -> Any:
    """A dataclass with one field a stage and evaluation, so that `--grpo.steps 3` overrides."""
    parts = (*found.stages, *found.evaluations)
    fields: list[Any] = [
        (_field(part.name), Annotated[type(part), tyro.conf.arg(name=part.name)]) for part in parts
    ]
    values = {_field(part.name): part for part in parts}
    return dataclasses.make_dataclass("Parts", fields, frozen=True)(**values)


def _field(name: str) -> str:
    return name.replace("-", "_").replace(".", "_")


def _overrides(names: list[str]) -> dict[str, list[str]]:
    """The flags meant for each part, as its own script takes them."""
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
