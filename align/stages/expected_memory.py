"""How much memory a stage will want, as said before its first step; see `align.planner`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from align.config import Passes, Stage
from align.planner.memory import GIB, Machine
from align.planner.packs import Row
from align.planner.shape import ShapeError
from align.planner.stage import models_of, planned


def expected_memory(config: Stage, module: Any, rows: Sequence[Any] | None = None) -> str:
    """Of one process: the peak, when it comes, and its parts in GiB.

    module: what is trained, with a `model` inside, whose configuration tells the sizes. rows: as a
    stage that passes over data holds them; of others every prompt is as long as it may be.
    """
    lengths = [_lengths(row) for row in rows or ()] if isinstance(config, Passes) else None
    file = Path(module.model.name_or_path) / "config.json"
    gpus = int(os.environ.get("WORLD_SIZE", "1")) if torch.cuda.is_available() else 0
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    room = torch.cuda.mem_get_info()[1] if gpus else psutil.virtual_memory().total
    try:
        models = models_of(config, (), file=file)
        plan = planned(config, models, Machine(gpus=gpus, memory=room, sharded=sharded), lengths)
    except ShapeError as error:
        return f"not known: {error}"
    peak = plan.memory.peak
    parts = sorted(peak.parts.items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts if size > GIB / 20)
    return f"at most {peak.bytes / GIB:.1f} GiB a process, in `{peak.name}` ({listed})"


def _lengths(row: Any) -> Row:
    """Of a row of any stage that passes over data."""
    if hasattr(row, "ids"):
        prompt = row.mask.index(1)
        return Row(prompt=prompt, completions=(len(row.ids) - prompt,))
    if hasattr(row, "completions"):
        answers = row.completions
    else:
        answers = [row.completion] if hasattr(row, "completion") else [row.chosen, row.rejected]
    return Row(prompt=len(row.prompt), completions=tuple(len(one.ids) for one in answers))
