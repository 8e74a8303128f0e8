"""Rows as prompt and completion ids, those that are too long left out and counted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import data
from align.config import Passes
from align.modeling.scorer import trimmed
from align.packing import Completion
from align.stages.context import Context
from align.terminal.progress import console
from data.chat import Rendered

Row = TypeVar("Row")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One prompt and two completions of it."""

    prompt: list[int]
    chosen: Completion
    rejected: Completion
    margin: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One prompt and one completion, called good or bad."""

    prompt: list[int]
    completion: Completion
    label: bool


def split(row: Rendered) -> tuple[list[int], Completion]:
    """Cut before the first trained token; what comes after is one completion, partly masked where
    it has turns of others in it.
    """
    start = row.mask.index(1)
    return row.ids[:start], Completion(ids=row.ids[start:], mask=row.mask[start:])


def pairs(rows: Any, config: Passes, context: Context, *, pad: int | None = None) -> list[Pair]:
    """Preference rows. With `pad`, what a classifier does not read is cut off the ends."""
    render = _renderer(context)
    found = []
    for i, row in enumerate(rows):
        both = [render(row, column) for column in ("chosen", "rejected")]
        if None in both:
            continue
        (prompt, chosen), (other, rejected) = both
        if prompt != other:
            raise data.RowError(
                row=i, column="rejected", expected="an answer to the prompt of chosen",
                seen="a prompt of other token ids; strip white space from both answers",
            )  # fmt: skip
        if pad is not None:
            chosen, rejected = _read_part(chosen, pad), _read_part(rejected, pad)
        margin = float(row["margin"]) if getattr(config, "margin", False) else 0.0
        found.append(Pair(prompt=prompt, chosen=chosen, rejected=rejected, margin=margin))
    _say_unrendered(len(rows) - len(found), len(rows))
    kept = [pair for pair in found if _different(pair)]
    if len(kept) < len(found):
        console.print(
            f"dropped {len(found) - len(kept):,} of {len(found):,} pairs whose answers are the "
            "same tokens, or none"
        )
    return within(kept, config, _longest)


def answered(rows: Any, context: Context) -> dict[int, tuple[list[int], Completion]]:
    """Of each row that can be rendered, by its place, the prompt and its own completion."""
    render = _renderer(context)
    found = {i: render(row, "completion") for i, row in enumerate(rows)}
    kept = {i: each for i, each in found.items() if each is not None}
    _say_unrendered(len(found) - len(kept), len(found))
    return kept


def labelled(rows: Any, config: Passes, context: Context) -> list[Labelled]:
    """Rows with a completion and a label."""
    render = _renderer(context)
    found = []
    for row in rows:
        if (rendered := render(row, "completion")) is not None:
            prompt, completion = rendered
            found.append(Labelled(prompt=prompt, completion=completion, label=row["label"]))
    _say_unrendered(len(rows) - len(found), len(rows))
    return within(found, config, lambda row: len(row.prompt) + len(row.completion.ids))


def within(rows: Sequence[Row], config: Passes, length: Callable[[Row], int]) -> list[Row]:
    """Rows of at most max_tokens tokens. Raises DataError where none is left."""
    kept = [row for row in rows if length(row) <= config.max_tokens]
    if len(kept) < len(rows):
        console.print(
            f"dropped {len(rows) - len(kept):,} of {len(rows):,} rows longer than "
            f"max_tokens={config.max_tokens}"
        )
    if not kept:
        raise data.DataError(
            f"no row is left: every one is longer than max_tokens={config.max_tokens}, or has "
            "nothing to learn from; raise --max-tokens"
        )
    return kept


def _renderer(
    context: Context,
) -> Callable[[Mapping[str, Any], str], tuple[list[int], Completion] | None]:
    """Renders one column of a row; None where the chat template cannot, as of a text that holds the
    token that ends a turn: public sets written by models have some.
    """

    def render(row: Mapping[str, Any], column: str) -> tuple[list[int], Completion] | None:
        asked = {"prompt": row["prompt"], "completion": row[column]}
        try:
            return split(data.chat.render(context.tokenizer, asked))
        except data.chat.RenderError as error:
            log.info("left out: %s", error)
            return None

    return render


def _say_unrendered(count: int, rows: int) -> None:
    if count:
        console.print(f"dropped {count:,} of {rows:,} rows that the chat template cannot render")


def _read_part(completion: Completion, pad: int) -> Completion:
    """One number a completion is read at its last token, so one token trains: that one."""
    ids = trimmed(completion.ids, pad)
    return Completion(ids=ids, mask=[0] * (len(ids) - 1) + [1] if ids else [])


def _longest(pair: Pair) -> int:
    return len(pair.prompt) + max(len(pair.chosen.ids), len(pair.rejected.ids))


def _different(pair: Pair) -> bool:
    """Whether there is something to compare."""
    chosen, rejected = list(pair.chosen.ids), list(pair.rejected.ids)
    return bool(chosen and rejected) and chosen != rejected
