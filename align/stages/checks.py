"""What can be known to be wrong before the first step: rows and rewards."""

from __future__ import annotations

import importlib.util
from typing import Any

import data
import rewards
from align.config import Rollouts, Sample, Stage
from align.files import folder
from align.model_reward import ModelReward
from align.references import loading
from align.stages.rolled import as_reward, judged, reward_columns
from align.terminal.progress import console
from data.gold_check import check_golds
from data.reward_probes import check_ends, check_varies
from data.reward_rows import check_every_row
from data.reward_scores import patience_of
from data.reward_together import check_together

ALIKE = 16  # rows from which on their being one is no first try
SECONDS = 16.0  # that each part of a reward's check may take, about


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
    if report.rows >= ALIKE and report.rows - report.duplicates == 1:
        raise data.DataError(
            f"all {report.rows:,} rows of {config.data.name} are the same; look how they came there"
        )
    if report.duplicates:
        level = "warning" if report.duplicates > report.rows / 2 else "note"
        console.print(f"{level}: {report.duplicates:,} of {report.rows:,} rows are duplicates")
    if getattr(config, "margin", False) and "margin" not in rows.column_names:
        raise data.DataError(
            f"--margin needs a column margin; there are: {', '.join(rows.column_names)}"
        )
    return rows


def check_reward(config: Rollouts | Sample, rows: Any, *, models_too: bool = True) -> None:
    """That the reward runs on these rows, differs between completions, and knows right from wrong
    where they have solutions. models_too: with its reward models, else with the rest of it.
    """
    reward = config.reward
    if loading(reward) and not models_too:
        reward = without_models(reward)
    first = [rows[0]]
    empty = "" if isinstance(rows[0]["prompt"], str) else data.rows.assistant("")
    columns = reward_columns(rows)
    patience = patience_of(as_reward(reward))
    judged(as_reward(reward), [empty], [[0]], first, columns, patience=patience)
    partly = bool(loading(config.reward))
    made = as_reward(reward)
    seconds = check_ends(rows, made)
    if not partly:
        _doubt("reward", check_varies(rows, made, most=_few(1, 8, seconds)))
        _doubt("reward", check_together(rows, made, most=_few(6, 16, seconds)))
    if models_too or partly:
        check_every_row(rows, made)
    if "solution" not in rows.column_names or not any(rows["solution"]):
        return
    if partly and not models_too and "solution" not in as_reward(reward).needed(rows[0]):
        return  # what would judge is still to be loaded
    found = data.validate.check_reward(rows, made, _few(4, 64, seconds), tolerance=0.05)
    _doubt("reward", found.doubt)
    if found.gold is not None:
        for doubt in check_golds(rows):
            _doubt("gold", doubt)
    if found.offending is not None:
        row = data.rows.nth(found.offending)
        console.print(
            f"warning: gold: the reward does not judge {1 - found.gold:.1%} of {found.rows} gold "
            f"answers right, the {row} for one: {rows[found.offending]['solution']!r}; "
            "mend or drop such rows"
        )


def _doubt(what: str, said: str) -> None:
    if said:
        console.print(f"warning: {what}: {said}", markup=False)


def _few(least: int, most: int, seconds: float) -> int:
    """How many of a kind are tried where each takes so long, ten times or so."""
    return max(least, min(most, int(SECONDS / (10 * max(seconds, 1e-6)))))


def without_models(reward: Any) -> rewards.Reward:
    """The same reward with 0 for what a model would give."""
    if isinstance(reward, ModelReward):
        return rewards.from_trl(lambda completions, **_: [0.0] * len(completions))
    if isinstance(reward, rewards.Reward) and reward.inner:
        return reward.with_inner([without_models(inner) for inner in reward.inner])
    return as_reward(reward)


def _with_completion(rows: Any) -> Any:
    """Rows that hold something to learn; word problems without a worked answer do not."""
    columns = [name for name in ("completion", "messages") if name in rows.column_names]
    kept = [i for i, row in enumerate(rows) if any(row[name] is not None for name in columns)]
    if not kept or len(kept) == len(rows):
        return rows  # nothing to leave out, or nothing at all: the validator says what is missing
    console.print(f"left out {len(rows) - len(kept):,} of {len(rows):,} rows without a completion")
    return rows.select(kept)
