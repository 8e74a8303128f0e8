"""A reward of a user's called on every row once, as far as seconds allow: one row of thousands that
lacks a value, or divides by zero, ends a run after hours.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data.reward_scores import GOLD_FORMAT, RewardCheckError, leaves, scores
from data.rows import nth

SECONDS = 8.0
CHUNK, MOST = 128, 20_000  # rows of a call, and of all


def check_every_row(rows: Sequence[Mapping[str, Any]], reward: Callable[..., Any]) -> None:
    """Raises RewardCheckError naming the row that it raises on, or gives what is no number for.

    Rewards of this project are not asked: they raise on no row.
    """
    if not any(_foreign(leaf) for leaf in leaves(reward)):
        return
    begun = time.monotonic()
    places = random.Random("reward check").sample(range(len(rows)), min(MOST, len(rows)))
    size = 1  # a call of one shows how long more take
    while places:
        if (left := SECONDS - (time.monotonic() - begun)) <= 0:
            return
        chunk, places = places[:size], places[size:]
        before = time.monotonic()
        _try(rows, chunk, reward)
        each = (time.monotonic() - before) / len(chunk)
        size = max(1, min(CHUNK, int(left / 4 / max(each, 1e-6))))


def _foreign(leaf: Any) -> bool:
    """Whether it is, or calls, code that is not this project's."""
    function = getattr(leaf, "fn", None)
    ours = type(leaf).__module__.partition(".")[0] in ("rewards", "align", "data")
    return function is not None or not ours


def _try(
    rows: Sequence[Mapping[str, Any]], places: Sequence[int], reward: Callable[..., Any]
) -> None:
    chunk = [rows[place] for place in places]
    try:
        scores(reward, chunk, [_text(row) for row in chunk])
    except RewardCheckError as error:
        if len(places) > 1:
            for place in places:
                _try(rows, [place], reward)
            raise  # in company alone
        raise RewardCheckError(f"{nth(places[0])}: {error}") from error


def _text(row: Mapping[str, Any]) -> str:
    return GOLD_FORMAT.replace("{solution}", str(row.get("solution") or 7))
