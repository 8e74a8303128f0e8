"""The command line of every script: `--recipe NAME` and dotted overrides over its own values.

Parsing comes first and imports no torch; what a user mistyped is answered in under a second.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from align import recipe as recipes
from align.config import ConfigError, Stage
from data import Source

Tracker = Literal["none", "tensorboard", "wandb", "trackio"]
ConfigType = TypeVar("ConfigType")

MARKERS = (
    tyro.conf.AvoidSubcommands,
    tyro.conf.SuppressFixed,
    tyro.conf.FlagCreatePairsOff,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Which recipe, and where it goes."""

    recipe: str
    """A recipe's name, e.g. smollm2."""
    out: Path | None = None
    """The run folder; default: runs/RECIPE."""

    @property
    def folder(self) -> Path:
        return self.out if self.out is not None else Path("runs") / self.recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRun(Run):
    """Which stage of which recipe, and how it starts."""

    stage: str | None = None
    """The stage's name, where the recipe has several of this kind."""
    resume: bool = False
    """Continue from the newest complete checkpoint (from the start if there is none)."""
    check: bool = False
    """Validate model, data and reward, try out what a step does, print the step arithmetic, and
    stop."""
    skip_trial: bool = False
    """Do not sample, score and compute a few rows before the first step."""
    report_to: Tracker = "none"
    """A tracker that gets the metrics besides metrics.jsonl."""


def fail(message: str) -> NoReturn:
    """End with one message on stderr and exit code 2: the user's mistake, not ours."""
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def parse(
    run_type: type[Run], config_of: Any, *, doc: str, args: list[str] | None = None
) -> tuple[Any, Any]:
    """Parse `run_type` and the configuration that `config_of(run)` finds in the recipe.

    Returns (run, configuration with the overrides). A wrong flag, name or value ends the process
    with the nearest right one.
    """
    args = sys.argv[1:] if args is None else args
    asked_help = any(arg in ("-h", "--help") for arg in args)
    registry = _registry()
    with registry:
        plain = [arg for arg in args if arg not in ("-h", "--help")]
        if asked_help and not any(arg.split("=")[0] == "--recipe" for arg in plain):
            tyro.cli(run_type, description=_help(doc), args=["--help"], config=MARKERS)
        run, _ = tyro.cli(
            run_type, description=_help(doc), args=plain, return_unknown_args=True, config=MARKERS
        )
        try:
            config = config_of(run)
        except recipes.RecipeError as error:
            fail(str(error))
        arguments = dataclasses.make_dataclass(
            "Arguments",
            [
                ("run", Annotated[run_type, tyro.conf.arg(name="")]),
                (
                    "config",
                    Annotated[type(config), tyro.conf.arg(name=""), tyro.conf.FlagConversionOff],
                ),
            ],
            frozen=True,
        )
        try:
            parsed = tyro.cli(
                arguments,
                default=arguments(run=run_type(recipe=run.recipe), config=config),
                description=_help(doc),
                args=args,
                config=MARKERS,
            )
        except ConfigError as error:
            fail(str(error))
    return parsed.run, parsed.config


def launch(stage_type: type[Stage], doc: str) -> None:
    """Parse the command line of a stage's script, check what can be checked cheaply, and run it."""
    run, stage = parse(
        StageRun, lambda run: recipes.load(run.recipe).stage(stage_type, run.stage), doc=doc
    )
    from align.files.disk import FolderError
    from align.files.locate import MissingError, locate
    from align.files.lock import check_free, end_with_starter
    from align.processes.interrupt import end_on_interrupt
    from align.processes.leaving import ending_in_time
    from align.references import references

    if sys.__stderr__ is not None:  # a crash in a reward's or a library's C says where it was
        faulthandler.enable(file=sys.__stderr__)
    end_on_interrupt()
    end_with_starter()
    try:
        located = {name: locate(name, run.folder, recipe=run.recipe) for name in references(stage)}
        if not run.check and os.environ.get("RANK", "0") == "0":
            check_free(run.folder / stage.name)
    except (MissingError, FolderError) as error:
        fail(str(error))
    from align.stages import MISTAKES, Launch, run_stage  # torch only now

    how = Launch(
        recipe=run.recipe,
        out=run.folder,
        resume=run.resume,
        check=run.check,
        report_to=run.report_to,
        trial=not run.skip_trial,
    )
    with ending_in_time():
        try:
            run_stage(stage, located, how)
        except MISTAKES as error:
            fail(str(error))


def _help(doc: str) -> str:
    return f"{doc.strip()}\n\nRecipes: {', '.join(recipes.names())}."


def _registry() -> ConstructorRegistry:
    """Teaches tyro that a data source is written as a file, a name or a hub id."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def source(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if info.type is not Source:
            return None
        import data

        def build(args: list[str]) -> Source:
            return data.resolve(args[0])

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="FILE|NAME|HUB-ID",
            instance_from_str=build,
            is_instance=lambda value: isinstance(value, Source),
            str_from_instance=lambda value: [value.name],
        )

    return registry
