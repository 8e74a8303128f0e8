"""The stage graph: which stage was made from which, and what the last run did with each.

`chain.json` says it where a chain wrote one, a stage's manifest where there is one, and else the
references in its configuration (`model="@sft"`, data taken from a stage). Drawn as rows: stages
from top to bottom in the recipe's order, the edge between neighbours on the trunk, longer ones on
lanes to its left, as version-control graphs are.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from align.report.curves import number
from align.report.folder import Row, Run, Stage

ACTIONS = ("ran", "resumed", "ran again", "reused", "not reached")
ROW, LANE, RADIUS = 64.0, 15.0, 6.0  # units of the drawing, sixteen to the font's size
BEND = 9.0
REFERENCE = re.compile(r"\s*(?:layers:\d+:)?@([\w.-]+)\s*")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A stage in the graph. `action` is one of ACTIONS, empty where no chain has said."""

    name: str
    kind: str
    parents: list[str]
    action: str = ""
    why: str = ""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Edge:
    """From row `start` to row `end`; lane 0 is the trunk, where only neighbours are joined."""

    start: int
    end: int
    lane: int


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes in the page's order and the edges between them."""

    nodes: list[Node]
    edges: list[Edge] = field(default_factory=list)

    @property
    def told(self) -> bool:
        """Whether a chain has said what it did."""
        return any(node.action for node in self.nodes)

    @property
    def trunk(self) -> float:
        """Where the nodes stand, from the left."""
        return RADIUS + 4 + LANE * max((edge.lane for edge in self.edges), default=0)

    @property
    def width(self) -> float:
        return self.trunk + RADIUS + 4

    @property
    def height(self) -> float:
        return ROW * len(self.nodes)

    def y(self, row: int) -> float:
        return ROW * (row + 0.5)

    def path(self, edge: Edge) -> str:
        """The edge as an SVG path: straight on the trunk, round a lane with bent corners."""
        top, bottom = self.y(edge.start), self.y(edge.end)
        if edge.lane == 0:
            return f"M{self.trunk:g} {top + RADIUS:g}V{bottom - RADIUS:g}"
        x = self.trunk - LANE * edge.lane
        return (
            f"M{self.trunk - RADIUS:g} {top:g}H{x + BEND:g}Q{x:g} {top:g} {x:g} {top + BEND:g}"
            f"V{bottom - BEND:g}Q{x:g} {bottom:g} {x + BEND:g} {bottom:g}H{self.trunk - RADIUS:g}"
        )


def read_graph(run: Run) -> Graph:
    """The graph of a run folder, whatever of it is there."""
    listed = run.chain.get("nodes")
    told = {
        row["stage"]: row
        for row in (listed if isinstance(listed, list) else [])
        if isinstance(row, dict) and isinstance(row.get("stage"), str)
    }
    stages = {stage.name: stage for stage in run.stages}
    names = [*stages, *(name for name in told if name not in stages)]
    nodes = [_node(name, told.get(name, {}), stages.get(name), names) for name in names]
    return Graph(nodes=nodes, edges=edges(nodes))


def _node(name: str, told: Row, stage: Stage | None, names: list[str]) -> Node:
    manifest = stage.manifest if stage else {}
    listed = told.get("parents", manifest.get("parents"))
    if not isinstance(listed, list):
        listed = references(stage.config) if stage else []
    seconds = number(told.get("seconds"))
    action, why, kind = (told.get(key) for key in ("action", "why", "kind"))
    return Node(
        name=name,
        kind=kind if isinstance(kind, str) else stage.kind if stage else "",
        parents=[p for p in names if p in listed and p != name],
        action=action if action in ACTIONS else "",
        why=why if isinstance(why, str) else "",
        seconds=seconds if seconds is not None and math.isfinite(seconds) else None,
    )


def references(config: Row) -> list[str]:
    """The stages that a configuration names: `@name`, and data taken from a stage."""
    return list(dict.fromkeys(_references(config)))


def _references(value: object) -> Iterator[str]:
    if isinstance(value, str):
        # Alternatives stand side by side; a student made of a model's layers is made from it.
        yield from (match[1] for part in value.split("|") if (match := REFERENCE.fullmatch(part)))
    elif isinstance(value, dict):
        if value.get("kind") == "FromStage" and isinstance(value.get("stage"), str):
            yield value["stage"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def edges(nodes: list[Node]) -> list[Edge]:
    """Every parent's edges. Those of one parent that pass by other stages share a lane."""
    row = {node.name: index for index, node in enumerate(nodes)}
    ends: dict[int, list[int]] = {}
    for node in nodes:
        for parent in node.parents:
            if row[parent] < row[node.name]:
                ends.setdefault(row[parent], []).append(row[node.name])
    found, taken = [], []
    for start, below in sorted(ends.items()):
        found += [Edge(start=start, end=end, lane=0) for end in below if end == start + 1]
        far = [end for end in below if end > start + 1]
        if far:
            lane = 1
            while any(lane == used and start <= last for used, last in taken):
                lane += 1
            taken.append((lane, max(far)))
            found += [Edge(start=start, end=end, lane=lane) for end in far]
    return found
