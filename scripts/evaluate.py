"""Score a model on held-out problems, strictly and leniently, with 95 % intervals.

python scripts/evaluate.py --recipe smollm2 --model @grpo
python scripts/evaluate.py --recipe smollm2 --model FOLDER --data problems.jsonl
python scripts/evaluate.py --recipe smollm2 --samples 8 --sampling.temperature 0.7

The third asks for pass@k and maj@k. Ready answers are scored without a recipe and a model:

python scripts/evaluate.py --completions answers.jsonl
"""

import dataclasses
import re
import sys
from pathlib import Path

import tyro

from align import recipe
from align.cli import MARKERS, Run, fail, parse
from align.config import Evaluation
from align.files import folder
from align.files.locate import MissingError, locate
from align.files.lock import end_with_starter, locked
from align.processes.interrupt import end_on_interrupt
from align.references import stages_named


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRun(Run):
    """Which model on which problems."""

    model: str | None = None
    """A folder, a hub id or @stage; default: what the recipe's last stage wrote."""
    stage: str | None = None
    """Short for --model @STAGE."""
    evaluation: str | None = None
    """Which of the recipe's evaluations; default: its first."""
    label: str | None = None
    """Name of the result in OUT/evaluations; default: made of the model and the data."""
    resume: bool = False
    """Keep a result of these very weights and values instead of answering again."""
    check: bool = False
    """Validate the model and the data, and stop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletionsRun:
    """Which answers to score."""

    completions: Path
    """A .jsonl or .parquet file with `completion` (a string, messages, or a list of several) and
    the gold in `solution` or `answer`."""
    out: Path = Path("runs/completions")
    """The run folder; the result goes to OUT/evaluations."""
    label: str | None = None
    """Name of the result; default: the file's."""


def evaluation_of(run: EvaluationRun) -> Evaluation:
    """The recipe's evaluation. Raises RecipeError where it has none."""
    return recipe.load(run.recipe).evaluation(run.evaluation)


def main() -> None:
    if any(arg.split("=")[0] == "--completions" for arg in sys.argv[1:]):
        score_completions()
        return
    run, config = parse(EvaluationRun, evaluation_of, doc=__doc__)
    stages = [stage.name for stage in recipe.load(run.recipe).stages]
    model = run.model or "@" + (run.stage or stages[-1])
    for name in stages_named(model):
        if name not in stages:
            known = ", ".join(stages)
            fail(f"recipe {run.recipe} has no stage called {name!r} (there are: {known})")
    try:
        located = locate(model, run.folder, recipe=run.recipe)
    except MissingError as error:
        fail(str(error))
    label = run.label or label_of(model, config)
    end_on_interrupt()
    end_with_starter()
    try:
        if run.resume and folder.evaluated(run.folder, label, config, located):
            print(f"{label} is evaluated already")
            return
    except folder.FolderError as error:
        fail(str(error))
    import data
    from align import evaluate
    from align.evaluation import results, trained_on
    from align.models import ModelError
    from align.rollout import EngineError
    from align.terminal.progress import console

    try:
        if run.check:
            data.validate.check_rows(config.data.rows(), "evaluate")
            console.print(f"{located.path} and {config.data.name} can be evaluated")
            return
        training = trained_on.training_of(recipe.load(run.recipe), located.path, run.folder)
        with locked(run.folder / "evaluations" / f".{label}"):
            summary = evaluate.evaluate(
                config, located, label=label, out=run.folder, training=training
            )
    except (data.DataError, folder.FolderError, EngineError, ModelError) as error:
        fail(str(error))
    console.print(results.line(summary), markup=False)


def score_completions() -> None:
    """Score ready answers."""
    run = tyro.cli(CompletionsRun, description=__doc__, config=MARKERS)
    import data
    from align.evaluation import completions, results

    try:
        label = run.label or run.completions.stem
        summary = completions.score(run.completions, label=label, out=run.out)
    except (data.DataError, folder.FolderError) as error:
        fail(str(error))
    print(results.line(summary))


def label_of(model: str, config: Evaluation) -> str:
    """`sft-svamp` for @sft and for runs/x/sft/model alike; the data's split where it has one."""
    parts = [part for part in re.split(r"[/|\\]", model) if part.strip()]
    name = parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]
    split = getattr(config.data, "split", None)
    data_name = config.data.name if split in (None, "train") else f"{config.data.name}-{split}"
    return re.sub(r"[^\w.-]+", "-", f"{name.strip().lstrip('@')}-{data_name}")


if __name__ == "__main__":
    main()
