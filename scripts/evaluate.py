"""Score a model on held-out problems, strictly and leniently, with 95 % intervals.

python scripts/evaluate.py --recipe smollm2 --model @grpo
python scripts/evaluate.py --recipe smollm2 --model FOLDER --data problems.jsonl
"""

import dataclasses
import re

from align import recipe
from align.cli import Run, fail, parse
from align.config import Evaluation
from align.locate import MissingError, locate


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRun(Run):
    """Which model on which problems."""

    model: str | None = None
    """A folder, a hub id or @stage; default: what the recipe's last stage wrote."""
    label: str | None = None
    """Name of the result in OUT/evaluations; default: made of the model and the data."""


def evaluation_of(run: EvaluationRun) -> Evaluation:
    """The recipe's evaluation. Raises RecipeError where it has none."""
    found = recipe.load(run.recipe)
    if found.evaluation is None:
        raise recipe.RecipeError(f"recipe {run.recipe} has no evaluation")
    return found.evaluation


def main() -> None:
    run, config = parse(EvaluationRun, evaluation_of, doc=__doc__)
    model = run.model or "@" + recipe.load(run.recipe).stages[-1].name
    try:
        located = locate(model, run.folder, recipe=run.recipe)
    except MissingError as error:
        fail(str(error))
    import data
    from align.evaluate import evaluate, line
    from align.progress import console

    short = re.split(r"[/|]", model.rstrip("/"))[-1].strip().lstrip("@").replace(":", "-")
    label = run.label or re.sub(r"[^\w.-]+", "-", f"{short}-{config.data.name}")
    try:
        summary = evaluate(config, located, label=label, out=run.folder)
    except data.DataError as error:
        fail(str(error))
    console.print(line(summary))


if __name__ == "__main__":
    main()
