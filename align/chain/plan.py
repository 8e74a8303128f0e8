"""What would run, and why: the stages of a recipe held against what a run folder holds.

A stage's result is kept where its configuration, the weights and data it reads and the files it
names are what its manifest says. Where one is not, the stage runs again, and so does everything
that reads what it wrote. Imports no torch and reads no data, so a look takes a moment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import data
from align import folder, manifest
from align.config import Stage
from align.locate import Located, MissingError, locate
from align.references import parents, references, stage_named

Action = Literal["reuse", "run", "resume", "run again"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """A stage, the stages it reads, what is to be done with it and why."""

    stage: Stage
    parents: tuple[str, ...]
    action: Action
    why: str


def plan(
    stages: Sequence[Stage], run: Path, *, recipe: str, again: Collection[str] = ()
) -> list[Node]:
    """A node for each stage, in their order. again: names of stages to run again in any case.

    Raises MissingError or DataError for what is missing and no stage will write.
    """
    found: dict[str, Node] = {}
    look = cache(lambda reference: locate(reference, run, recipe=recipe))
    for stage in stages:
        moved = [name for name in parents(stage) if name in found and found[name].action != "reuse"]
        located = {name: look(name) for name in references(stage) if stage_named(name) not in moved}
        action, why = _decide(stage, run, located, moved, stage.name in again)
        found[stage.name] = Node(stage=stage, parents=tuple(parents(stage)), action=action, why=why)
    return list(found.values())


def missing(stage: Stage, run: Path, *, recipe: str) -> str | None:
    """The first thing that the stage reads and that is not there, with what to do."""
    try:
        for reference in references(stage):
            locate(reference, run, recipe=recipe)
        for source in data.from_stages(stage):
            source.file(run)
    except (MissingError, data.DataError) as error:
        return str(error)
    return None


def _decide(
    stage: Stage, run: Path, located: dict[str, Located], moved: list[str], again: bool
) -> tuple[Action, str]:
    before = manifest.read(run / stage.name)
    if before is None:
        return "run", "first run"
    if again:
        return "run again", "asked for"
    if moved:
        return "run again", f"{' and '.join(moved)} will have changed"
    now = manifest.basis(stage, located, run)
    if changed := manifest.changes(before, now, free=stage.free):
        return "run again", "; ".join(changed)
    if not folder.is_done(run / stage.name):
        return "resume", "interrupted"
    if changed := manifest.changes(before, now):
        return "resume", f"{'; '.join(changed)}: chosen again from what was sampled"
    return "reuse", "complete and unchanged"
