"""What can be checked of a stage whose input is still to be made: its rows, its reward, and with
the tokenizer of the nearest ancestor that is there all that follows from these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align import models
from align.config import Rollouts, Sample, Stage
from align.files.locate import Located, MissingError, locate
from align.preflight.inputs import check_inputs
from align.references import stages_named
from align.stages.checks import check_reward, checked_rows
from align.stages.context import Launch
from align.terminal.findings import Findings


def check_foreseen(config: Stage, stages: Sequence[Stage], launch: Launch) -> int:
    """How many rows the stage has. stages: the recipe's. Raises one of MISTAKES."""
    rows = checked_rows(config)
    if isinstance(config, Rollouts | Sample):
        check_reward(config, rows, models_too=False)
    located = nearest(config, stages, launch.out, recipe=launch.recipe)
    if located is not None:
        found = Findings()
        path = models.ready(located, weights=False)
        check_inputs(config, rows, {config.model: path}, launch, found)
        found.settle()
    return len(rows)


def nearest(config: Stage, stages: Sequence[Stage], run: Path, *, recipe: str) -> Located | None:
    """The stage's input, or of the stages behind it the first whose own is there."""
    named = {stage.name: stage for stage in stages}
    reference = config.model
    while True:
        try:
            return locate(reference, run, recipe=recipe)
        except MissingError:
            behind = [name for name in stages_named(reference) if name in named]
            if not behind:
                return None
            reference = named[behind[0]].model
