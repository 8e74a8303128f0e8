"""Reads a run folder as it is found: any stage or file may be missing, the last line half written.

Nothing is dropped in silence: an unreadable line becomes a note, which the page shows.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
STAGE_FILES = (
    "config.json",
    "metrics.jsonl",
    "samples.jsonl",
    "heldout.json",
    "manifest.json",
    "watch.jsonl",
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: its configuration, and its log with a row for each step in order.

    manifest: what it was made from (inputs, data, code, libraries); empty where none was written.
    warnings: what the watch over the log has warned of.
    """

    name: str
    path: Path
    config: Row
    metrics: list[Row]
    manifest: Row = field(default_factory=dict)
    warnings: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """What sort of stage it is (`grpo`, `dpo`, …); empty where no configuration says."""
        kind = self.config.get("kind")
        return kind if isinstance(kind, str) else ""

    @property
    def step(self) -> int:
        return self.metrics[-1]["step"] if self.metrics else 0

    @property
    def steps(self) -> int | None:
        return self.metrics[-1].get("steps") if self.metrics else None

    @property
    def status(self) -> str:
        if (self.path / "model").is_dir() or (self.path / "done.json").is_file():
            return "finished"
        return "unfinished" if self.metrics else "not started"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder: recipe.json, the stages in the recipe's order, and what the chain did last."""

    out: Path
    recipe: Row
    stages: list[Stage]
    chain: Row = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.recipe.get("recipe") or self.out.resolve().name)


def json_lines(path: Path) -> Iterator[tuple[int, Row | None]]:
    """(byte offset, row) of each line of a JSONL file; None for a row that is not an object."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield offset, _object(line)
            offset += len(line)


def row_at(file: Any, offset: int) -> Row:
    """The row that starts at a byte offset `json_lines` gave, of a file opened in binary mode."""
    file.seek(offset)
    return json.loads(file.readline())


def _object(text: bytes) -> Row | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """All readable rows and a note on those that were not; both empty where there is no file."""
    if not path.is_file():
        return [], []
    rows = [row for _, row in json_lines(path)]
    return [row for row in rows if row is not None], unreadable(path, rows.count(None))


def unreadable(path: Path, count: int) -> list[str]:
    """The note for `count` lines left out; a run still writing leaves one such line at the end."""
    if not count:
        return []
    lines = "1 unreadable line" if count == 1 else f"{count:,} unreadable lines"
    return [f"{lines} in {path.parent.name}/{path.name} left out."]


def read_json(path: Path) -> tuple[Row, list[str]]:
    """The object in a JSON file, empty where there is none, and a note where it cannot be read."""
    if not path.is_file():
        return {}, []
    row = _object(path.read_bytes())
    if row is None:
        return {}, [f"{path.parent.name}/{path.name} is not a JSON object and was left out."]
    return row, []


def read_stage(path: Path) -> Stage:
    """One stage's folder. A step that was logged twice counts once, the later row being right."""
    config, config_notes = read_json(path / "config.json")
    rows, notes = read_rows(path / "metrics.jsonl")
    by_step = {row["step"]: row for row in rows if isinstance(row.get("step"), int)}
    manifest, manifest_notes = read_json(path / "manifest.json")
    warnings, warning_notes = read_rows(path / "watch.jsonl")
    return Stage(
        name=path.name,
        path=path,
        config=config,
        metrics=[by_step[step] for step in sorted(by_step)],
        manifest=manifest,
        warnings=warnings,
        notes=config_notes + notes + manifest_notes + warning_notes,
    )


def _holds_run(out: Path) -> bool:
    """Whether a run, a stage or an evaluation has written here, however little of it is left."""
    written = any((out / name).is_file() for name in ("recipe.json", "chain.json"))
    stages = (out.glob(f"*/{name}") for name in STAGE_FILES)
    return written or (out / "evaluations").is_dir() or any(any(found) for found in stages)


def read_run(out: Path) -> Run:
    """The run folder `out`. Raises FileNotFoundError, with what to type, where there is none."""
    if not out.is_dir() or not _holds_run(out):
        what = f"{out} holds no run" if out.is_dir() else f"there is no run folder {out}"
        other = f"python scripts/run.py --recipe NAME{'' if out.is_dir() else f' --out {out}'}"
        raise FileNotFoundError(f"{what}; give a run's folder, or start one with: {other}")
    recipe, notes = read_json(out / "recipe.json")
    chain, chain_notes = read_json(out / "chain.json")
    stages = recipe.get("stages")
    planned = [name for name in stages if isinstance(name, str)] if isinstance(stages, list) else []
    present = [
        folder.name
        for folder in sorted(out.iterdir())
        if any((folder / name).is_file() for name in STAGE_FILES)
    ]
    names = planned + [name for name in present if name not in planned]
    # A name is one folder inside the run, whatever recipe.json says.
    safe = [name for name in names if Path(name).name == name]
    return Run(
        out=out,
        recipe=recipe,
        stages=[read_stage(out / name) for name in safe],
        chain=chain,
        notes=notes + chain_notes,
    )
