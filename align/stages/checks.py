"""What can be known to be wrong before the first step: rows, rewards, lengths."""

from __future__ import annotations

import importlib.util
from typing import Any

import data
from align import folder, models
from align.config import Distill, Passes, Rollouts, Sample, Stage
from align.progress import console
from align.stages.rolled import as_reward, judged, reward_columns


def check_tracker(name: str) -> None:
    if name != "none" and importlib.util.find_spec(name) is None:
        raise folder.FolderError(f"--report-to {name}: not installed; pip install {name}")


def checked_rows(config: Stage) -> Any:
    """The stage's rows, of the right shape."""
    rows = config.data.rows()
    kind = config.rows_kind or config.kind
    if kind == "sft":
        rows = _with_completion(rows)
    given = getattr(config, "reward", None)
    reward = None if given is None else as_reward(given)
    report = data.validate.check_rows(rows, kind, reward)
    if report.duplicates:
        console.print(f"note: {report.duplicates:,} of {report.rows:,} rows are duplicates")
    if getattr(config, "margin", False) and "margin" not in rows.column_names:
        raise data.DataError(
            f"--margin needs a column margin; there are: {', '.join(rows.column_names)}"
        )
    return rows


def check_reward(config: Rollouts | Sample, rows: Any) -> None:
    """That the reward runs on these rows, and knows right from wrong where they have solutions."""
    first = [rows[0]]
    empty = "" if isinstance(rows[0]["prompt"], str) else data.rows.assistant("")
    judged(as_reward(config.reward), [empty], [[0]], first, reward_columns(rows))
    if "solution" in rows.column_names and any(rows["solution"]):
        data.validate.check_reward(rows, config.reward, tolerance=0.05)


def check_context(config: Stage, model: Any) -> None:
    """Positions that a model was not made for give nonsense without a word."""
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and room < longest(config):
        flags = "--sampling.max-prompt-tokens and --sampling.max-tokens together"
        flag = flags if isinstance(config, Rollouts | Distill | Sample) else "--max-tokens"
        raise models.ModelError(f"the model has {room} positions; {flag} must not exceed them")


def longest(config: Stage) -> int:
    """Tokens of the longest sequence that the stage lets in."""
    if isinstance(config, Rollouts | Distill | Sample):
        return config.sampling.max_prompt_tokens + config.sampling.max_tokens
    assert isinstance(config, Passes)
    return config.max_tokens


def _with_completion(rows: Any) -> Any:
    """Rows that hold something to learn; word problems without a worked answer do not."""
    columns = [name for name in ("completion", "messages") if name in rows.column_names]
    kept = [i for i, row in enumerate(rows) if any(row[name] is not None for name in columns)]
    if not kept or len(kept) == len(rows):
        return rows  # nothing to leave out, or nothing at all: the validator says what is missing
    console.print(f"left out {len(rows) - len(kept):,} of {len(rows):,} rows without a completion")
    return rows.select(kept)
