"""What would run, and why: the stages of a recipe held against what a run folder holds.

A stage's result is kept where its configuration, the weights and data it reads and the files it
names are what its manifest says. Where one is not, the stage runs again, and so does everything
that reads what it wrote. Imports no torch and reads no data, so a look takes a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import data
from align.config import Stage
from align.files import folder, manifest
from align.files.locate import Located, MissingError, locate
from align.references import parents, references, stages_named

CHOSEN = "chosen again from what was sampled"
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
        # Says what is missing before hours of other stages.
        data.fingerprint.of_files(stage)
        for name in references(stage):
            if not stages_named(name):
                look(name)
        moving = {name for name, node in found.items() if node.action != "reuse"}
        if stage.name in again:
            action, why = _asked(run / stage.name)
        else:
            action, why = _decide(stage, run, moving, look)
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


def _asked(folder: Path) -> tuple[Action, str]:
    return ("run again", "asked for") if folder.is_dir() else ("run", "first run")


def _decide(
    stage: Stage, run: Path, moving: set[str], look: Callable[[str], Located]
) -> tuple[Action, str]:
    """moving: the stages whose output will be another."""
    before = manifest.read(run / stage.name)
    if before is None:
        done = folder.is_done(run / stage.name)
        return ("run again", "there is no manifest") if done else ("run", "first run")
    if read := [name for name in parents(stage, free=False) if name in moving]:
        return "run again", f"{' and '.join(read)} will have changed"
    # What only free fields read is not there yet where it will be another.
    if read := [name for name in parents(stage) if name in moving]:
        return "resume", f"{' and '.join(read)} will have changed: {CHOSEN}"
    located = {name: look(name) for name in references(stage)}
    now = manifest.basis(stage, located, run)
    if changed := manifest.changes(before, now, free=stage.free):
        return "run again", "; ".join(changed)
    if not folder.is_done(run / stage.name):
        return "resume", "interrupted"
    if changed := manifest.changes(before, now):
        return "resume", f"{'; '.join(changed)}: {CHOSEN}"
    return "reuse", "complete and unchanged"
