"""Score a model on held-out problems, strictly and leniently, with 95 % intervals.

python scripts/evaluate.py --recipe smollm2 --model @grpo
python scripts/evaluate.py --recipe smollm2 --model FOLDER --data problems.jsonl
"""

import dataclasses
import re

from align import folder, recipe
from align.cli import Run, fail, parse
from align.config import Evaluation
from align.locate import MissingError, locate


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRun(Run):
    """Which model on which problems."""

    model: str | None = None
    """A folder, a hub id or @stage; default: what the recipe's last stage wrote."""
    stage: str | None = None
    """Short for --model @STAGE."""
    label: str | None = None
    """Name of the result in OUT/evaluations; default: made of the model and the data."""
    resume: bool = False
    """Keep a result of these very weights and values instead of answering again."""
    check: bool = False
    """Validate the model and the data, and stop."""


def evaluation_of(run: EvaluationRun) -> Evaluation:
    """The recipe's evaluation. Raises RecipeError where it has none."""
    found = recipe.load(run.recipe)
    if found.evaluation is None:
        raise recipe.RecipeError(f"recipe {run.recipe} has no evaluation")
    return found.evaluation


def main() -> None:
    run, config = parse(EvaluationRun, evaluation_of, doc=__doc__)
    model = run.model or "@" + (run.stage or recipe.load(run.recipe).stages[-1].name)
    try:
        located = locate(model, run.folder, recipe=run.recipe)
    except MissingError as error:
        fail(str(error))
    label = run.label or label_of(model, config)
    if run.resume and folder.evaluated(run.folder, label, config, located):
        print(f"{label} is evaluated already")
        return
    import data
    from align import evaluate
    from align.models import ModelError
    from align.progress import console
    from align.rollout import EngineError

    try:
        if run.check:
            data.validate.check_rows(config.data.rows(), "evaluate")
            console.print(f"{located.path} and {config.data.name} can be evaluated")
            return
        summary = evaluate.evaluate(config, located, label=label, out=run.folder)
    except (data.DataError, EngineError, ModelError) as error:
        fail(str(error))
    console.print(evaluate.line(summary))


def label_of(model: str, config: Evaluation) -> str:
    """`sft-svamp` for @sft and for runs/x/sft/model alike; the data's split where it has one."""
    parts = [part for part in re.split(r"[/|\\]", model) if part.strip()]
    name = parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]
    split = getattr(config.data, "split", None)
    data_name = config.data.name if split in (None, "train") else f"{config.data.name}-{split}"
    return re.sub(r"[^\w.-]+", "-", f"{name.strip().lstrip('@')}-{data_name}")


if __name__ == "__main__":
    main()
