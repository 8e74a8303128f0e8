"""What the page says about held-out data, as plain text."""

from pathlib import Path

from align.report import comparisons, evaluations
from align.report.folder import read_run
from align.report.heldout import read_heldout, sentence


def table(out: Path) -> str:
    """The before/after table of a run folder, the paired tests and the reward models below it.

    Raises FileNotFoundError where there is no folder.
    """
    run = read_run(Path(out))
    evaluated, _ = evaluations.read_evaluations(run)
    if evaluated:
        changes = comparisons.changes(evaluated, run)
        text = evaluations.lines(evaluated) + comparisons.lines(changes)
    else:
        text = [f"No evaluations in {run.out / 'evaluations'} yet."]
    for stage in run.stages:
        heldout, _ = read_heldout(stage.path / "heldout.json")
        if heldout is not None:
            text.append(sentence(stage.name, heldout))
    return "\n".join(text)
