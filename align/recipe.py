"""A recipe: ordered stages with values, checked when it is built.

A recipe is a module of `recipes/` (`qwen0.5b` is `recipes/qwen0_5b.py`) with one `RECIPE`.
A model written `@sft` is what the stage called `sft` of the same run wrote; a typo there, or in a
recipe's name, fails at once and names the nearest thing that exists. Imports no torch.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import traceback
from dataclasses import dataclass
from pathlib import Path

import data
from align.config import Evaluation, Stage
from align.references import layers_of, references, stages_named


class RecipeError(ValueError):
    """A recipe that cannot run, with what to type instead."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Stages in the order they run in, and the held-out problems that tell whether they helped."""

    name: str
    stages: tuple[Stage, ...]
    evaluations: tuple[Evaluation, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise RecipeError(f"recipe {self.name} has no stages")
        before: list[str] = []
        models: list[str] = []
        written: list[str] = []
        for stage in self.stages:
            if stage.name in before:
                raise RecipeError(f"recipe {self.name}: two stages are called {stage.name!r}")
            for reference in references(stage):
                verb = "starts from" if reference == stage.model else "needs"
                wish = f"{stage.name!r} {verb} {reference!r}"
                self._check_layers(wish, reference)
                self._check(wish, stages_named(reference), "models", models)
            for source in data.from_stages(stage):
                wish = f"{stage.name!r} reads {source.name!r}"
                self._check(wish, [source.stage], "data", written)
            before.append(stage.name)
            (written if stage.writes == "data" else models).append(stage.name)
        for evaluation in self.evaluations:
            if evaluation.name in before:
                raise RecipeError(
                    f"recipe {self.name}: a stage or another evaluation is called "
                    f"{evaluation.name!r} too; a name is the prefix of flags"
                )
            before.append(evaluation.name)

    def _check(self, wish: str, named: list[str], what: str, fitting: list[str]) -> None:
        """That the stages named come before, and write what is wanted of them."""
        if set(named) <= set(fitting):
            return
        known = ", ".join("@" + name for name in fitting) or "none"
        raise RecipeError(
            f"recipe {self.name}: stage {wish}, but the {what} of the stages before it are: {known}"
        )

    def _check_layers(self, wish: str, reference: str) -> None:
        keep, _ = layers_of(reference)
        if keep is not None and not (keep.isdecimal() and int(keep)):
            raise RecipeError(
                f"recipe {self.name}: stage {wish}, but {keep!r} is no number of layers"
            )

    def evaluation(self, name: str | None = None) -> Evaluation:
        """The evaluation of that name; without a name the first. Raises RecipeError."""
        for evaluation in self.evaluations:
            if name in (None, evaluation.name):
                return evaluation
        if not self.evaluations:
            raise RecipeError(f"recipe {self.name} has no evaluation")
        known = ", ".join(evaluation.name for evaluation in self.evaluations)
        raise RecipeError(f"recipe {self.name} has no evaluation {name!r} (there are: {known})")

    def stage(self, kind: type[Stage], name: str | None = None) -> Stage:
        """The stage of that kind; `name` chooses where there are several."""
        fitting = {stage.name: stage for stage in self.stages if isinstance(stage, kind)}
        if name is None and len(fitting) == 1:
            return next(iter(fitting.values()))
        if name in fitting:
            return fitting[name]
        names = ", ".join(fitting) or "none"
        problem = f"has no {kind.kind} stage called {name!r}" if name else (
            f"has {len(fitting)} {kind.kind} stages: choose one with --stage"
        )  # fmt: skip
        raise RecipeError(f"recipe {self.name} {problem} ({kind.kind} stages: {names})")


def names() -> tuple[str, ...]:
    """Every recipe's name, as `--recipe` takes it."""
    return tuple(sorted(_name(module) for module in _modules()))


def load(name: str) -> Recipe:
    """The recipe of that name. Raises RecipeError, which names the nearest one where there is none,
    and file and line where its module cannot be imported or holds no recipe.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RecipeError(f"no recipe called {name!r}{hint} (there are: {', '.join(known)})")
    module = next(m for m in _modules() if _name(m) == name)
    try:
        found = getattr(importlib.import_module(f"recipes.{module}"), "RECIPE", None)
    except Exception as error:  # a recipe is the user's code, which raises whatever it likes
        raise RecipeError(_raised(error, f"{module}.py")) from error
    if not isinstance(found, Recipe):
        said = "has no RECIPE" if found is None else f"has a {type(found).__name__} as RECIPE"
        raise RecipeError(
            f"recipes/{module}.py {said}: end it with RECIPE = Recipe(name={name!r}, …)"
        )
    return found


def _raised(error: Exception, file: str) -> str:
    """What a recipe's module raised, in one line, with the deepest line of a recipe that led to it.
    file: the module's, for what has no line.
    """
    import recipes

    folders = [Path(folder).resolve() for folder in recipes.__path__]
    frames = traceback.extract_tb(error.__traceback__)
    places = [(frame.filename, frame.lineno) for frame in frames]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    own = [
        (Path(path).name, number)
        for path, number in places
        if Path(path).resolve().parent in folders
    ]
    file, number = own[-1] if own else (file, None)
    where = f"recipes/{file}" + (f", line {number}" if number else "")
    ours = type(error).__module__.partition(".")[0] in ("align", "data", "rewards")
    kind = "" if ours else f"{type(error).__name__}: "
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{where}: {kind}{' '.join(said.split())}"


def _modules() -> list[str]:
    import recipes

    return [m.name for m in pkgutil.iter_modules(recipes.__path__) if not m.name.startswith("_")]


def _name(module: str) -> str:
    """`qwen0_5b_zero` -> `qwen0.5b-zero`: an underscore between digits is a point, else a dash."""
    out = ""
    for i, char in enumerate(module):
        between_digits = char == "_" and module[i - 1].isdigit() and module[i + 1 : i + 2].isdigit()
        out += "." if between_digits else "-" if char == "_" else char
    return out
