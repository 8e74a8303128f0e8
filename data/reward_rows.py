"""A reward of a user's called on every row once, as far as seconds allow: one row of thousands that
lacks a value, or divides by zero, ends a run after hours.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import rewards
from data.reward_scores import GOLD_FORMAT, RewardCheckError, is_ours, leaves, scores
from data.rows import nth

SECONDS = 8.0
CHUNK, MOST = 128, 20_000  # rows of a call, and of all
FIXED = 1_000  # rows of all where what the reward remembers goes into training
PATIENCE = 12.0  # seconds for a call, which is to take an eighth of what is left
FIND, EACH = 30.0, 1.0  # seconds until the row is found that a call hangs on; for a call on the way


def check_every_row(rows: Sequence[Mapping[str, Any]], reward: Callable[..., Any]) -> None:
    """Raises RewardCheckError naming the row that it raises on, or gives what is no number for.

    Rewards of this project are not asked: they raise on no row. A copy is asked where there can be
    one. A function remembers in itself, and so sees a number of rows that does not depend on the
    machine's speed, unless it is too slow for it.
    """
    if not any(_foreign(leaf) for leaf in leaves(reward)):
        return
    begun = time.monotonic()
    aside = _copied(reward)
    reward, most = (reward, FIXED) if aside is None else (aside, MOST)
    places = random.Random("reward check").sample(range(len(rows)), min(most, len(rows)))
    size = 1  # a call of one shows how long more take
    while places:
        if (left := SECONDS - (time.monotonic() - begun)) <= 0:
            return
        chunk, places = places[:size], places[size:]
        before = time.monotonic()
        _try(rows, chunk, reward)
        each = (time.monotonic() - before) / len(chunk)
        size = max(1, min(CHUNK, int(left / 8 / max(each, 1e-6))))


def _foreign(leaf: Any) -> bool:
    """Whether it is, or calls, code that is not this project's."""
    return getattr(leaf, "fn", None) is not None or not is_ours(leaf)


def _copied(reward: Callable[..., Any]) -> Any:
    """A copy that shares no memory with it, but for this project's rewards; None where there is
    none, as of functions, or where it would hold a network twice.
    """
    kept = {id(leaf): leaf for leaf in leaves(reward) if not _foreign(leaf)}
    for leaf in leaves(reward):
        held = getattr(leaf, "fn", leaf)
        within = [held, *getattr(held, "__dict__", {}).values()]
        network = any(hasattr(one, "parameters") or hasattr(one, "model") for one in within)
        if id(leaf) not in kept and (network or isinstance(held, FunctionType)):
            return None
    try:
        return copy.deepcopy(reward, kept)
    except Exception:  # a user's object may hold anything
        return None


def _try(
    rows: Sequence[Mapping[str, Any]], places: Sequence[int], reward: Callable[..., Any]
) -> None:
    begun = time.monotonic()
    error = _error(rows, places, reward, PATIENCE)
    if error is None:
        return
    many, hung = len(places) > 1, isinstance(error.__cause__, rewards.ContainedError)
    while len(places) > 1:
        if time.monotonic() - begun > FIND:
            if all(hasattr(leaf, "seconds") for leaf in leaves(reward)):
                return  # it limits each completion by itself, and some take all of that
            among = ", ".join(map(nth, sorted(places)[:5]))
            raise RewardCheckError(f"among {len(places)} rows ({among} …): {error}") from error
        half = places[: len(places) // 2]
        wrong = _error(rows, half, reward, EACH)
        places = places[len(half) :] if wrong is None else half
    alone = _error(rows, places, reward, PATIENCE) if many else error
    if alone is not None:
        raise RewardCheckError(f"{nth(places[0])}: {alone}") from alone
    if not hung:  # else it only was slow
        raise error  # in company alone


def _error(
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[int],
    reward: Callable[..., Any],
    seconds: float,
) -> RewardCheckError | None:
    chunk = [rows[place] for place in places]
    try:
        scores(reward, chunk, [_text(row) for row in chunk], whole=seconds)
    except RewardCheckError as error:
        return error
    return None


def _text(row: Mapping[str, Any]) -> str:
    return GOLD_FORMAT.replace("{solution}", str(row.get("solution") or 7))
