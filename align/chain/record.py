"""OUT/chain.json: what the last call of the chain did with each stage, and why."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from align.chain.plan import Node
from align.folder import write_json

Done = Literal["reused", "ran", "resumed", "ran again", "not reached"]
PAST: dict[str, Done] = {
    "reuse": "reused",
    "run": "ran",
    "resume": "resumed",
    "run again": "ran again",
}


class Record:
    """Written at the start and after every stage, so that a killed call leaves what it got to."""

    def __init__(self, out: Path, recipe: str, nodes: Sequence[Node]) -> None:
        self.path = out / "chain.json"
        self.nodes: list[dict[str, Any]] = [
            {
                "stage": node.stage.name,
                "kind": node.stage.kind,
                "parents": list(node.parents),
                "action": "not reached",
                "why": node.why,
                "seconds": None,
            }
            for node in nodes
        ]
        self.about = {"recipe": recipe, "started": round(time.time(), 3), "finished": None}
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


def set_aside(out: Path, nodes: Sequence[Node]) -> dict[str, Path]:
    """Move every stage that runs again to OUT/replaced, without its checkpoints, before the first
    one starts: a chain killed in between finds them missing, not stale.
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
        shutil.rmtree(into / "checkpoints", ignore_errors=True)
        for result in results:  # of weights that are no longer there
            result.rename(into / result.name)
        moved[name] = into
    return moved
