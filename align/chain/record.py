"""OUT/chain.json: what the last call that found something to do did with each stage, and why."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from align.chain.plan import Node
from align.files.folder import is_done, read_object, write_json
from align.recipe import Recipe
from align.references import parents

Done = Literal["reused", "ran", "resumed", "ran again", "not reached"]
PAST: dict[str, Done] = {
    "reuse": "reused",
    "run": "ran",
    "resume": "resumed",
    "run again": "ran again",
}


class Record:
    """Written at the start and after every stage, so that a killed call leaves what it got to."""

    def __init__(self, out: Path, recipe: Recipe, nodes: Sequence[Node], *, begun: str) -> None:
        """begun: the stage that was asked to run again, or empty."""
        self.path = out / "chain.json"
        planned = {node.stage.name: node for node in nodes}
        self.nodes: list[dict[str, Any]] = [
            {
                "stage": stage.name,
                "kind": stage.kind,
                "parents": parents(stage),
                "action": "not reached",
                "why": planned[stage.name].why if stage.name in planned else "not asked for",
                "seconds": None,
            }
            for stage in recipe.stages
        ]
        started = round(time.time(), 3)
        self.about = {"recipe": recipe.name, "from": begun, "started": started, "finished": None}
        self._write()

    def done(self, node: Node, seconds: float | None) -> None:
        """A stage is complete, after so many seconds of this call."""
        about = next(each for each in self.nodes if each["stage"] == node.stage.name)
        about |= {"action": PAST[node.action], "seconds": seconds and round(seconds, 1)}
        self._write()

    def finished(self) -> None:
        self.about["finished"] = round(time.time(), 3)
        self._write()

    def _write(self) -> None:
        write_json(self.path, {**self.about, "nodes": self.nodes})


def is_begun(out: Path, stage: str) -> bool:
    """Whether the last call was asked to run from that stage again and did not come to its end.

    Raises FolderError where it cannot be told.
    """
    path = out / "chain.json"
    try:
        about = read_object(path, needs=("from", "finished"), cure=f"delete {path}")
    except FileNotFoundError:
        return False
    return about["from"] == stage and about["finished"] is None


def set_aside(out: Path, nodes: Sequence[Node]) -> dict[str, Path]:
    """Move every stage that runs again to OUT/replaced, a complete one without its checkpoints,
    before the first one starts: a chain killed in between finds them missing, not stale.
    """
    moved = {}
    # The last first: a kill on the way leaves a stage whose input is gone, never one whose input
    # is another's.
    for node in reversed([node for node in nodes if node.action == "run again"]):
        name = node.stage.name
        into = out / "replaced" / name
        count = 1
        while into.exists():
            count += 1
            into = out / "replaced" / f"{name}-{count}"
        into.parent.mkdir(exist_ok=True)
        results = [*(out / "evaluations").glob(f"{name}.*")]
        (out / name).rename(into)
        if is_done(into):
            shutil.rmtree(into / "checkpoints", ignore_errors=True)
        for result in results:  # of weights that are no longer there
            result.rename(into / result.name)
        moved[name] = into
    return moved
