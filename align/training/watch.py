"""A watch for reward hacking: rules over a run's own figures, none of which a good run trips over.

| rule | what is seen |
|---|---|
| `shaped-reward` | a part of the reward, or the whole, rises while raw correctness falls |
| `length` | completions grow, and no more of them are right, or run into the limit |
| `same-answer` | one and the same text makes up most completions of several steps |
| `entropy` | the policy's entropy falls to a small part of where it began |
| `dead-groups` | for several steps no group has anything to tell its completions apart by |

Rules are pure: they look at rows of metrics.jsonl and nothing else, so a resumed run that reads the
rows back says what an uninterrupted one says. A rule speaks once an episode, which ends when it has
been quiet for `WINDOW` steps. Means are over `WINDOW` steps, and a difference of two such means
counts from `SURE` standard errors on (Welch's), beside a least size of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean, variance
from typing import Any

Row = Mapping[str, Any]
Seen = tuple[str, dict[str, float]]

WINDOW = 6  # steps of a mean
SURE = 4.0  # standard errors; at 3, noise alone is taken for a finding every few thousand steps
SHORT = 3  # steps in a row, for what needs no mean
LEAST_FALL = 0.05  # of correctness, a share
LEAST_RISE = 0.05  # of a reward; of its size where that is above 1
LENGTH_FACTOR = 2.0  # times the first window's
TRUNCATED_RISE = 0.2  # above the first window's share
TRUNCATED_USUAL = 0.25  # a first window with more is cut as a rule, as continuations are
DOMINANT = 0.55  # share of one text
ENTROPY_LEFT = 0.08  # of the first window's

TRY = {
    "shaped-reward": "lower that part's weight or let it count only where the answer is right, and "
    "read the samples it likes",
    "length": "add rewards.SoftOverlong or rewards.Cosine to the reward, or lower "
    "--sampling.max-tokens",
    "same-answer": "look at what the reward gives that text; raise --beta or "
    "--sampling.temperature, or start again from an earlier checkpoint at a lower --optim.lr",
    "entropy": "raise --eps-high, --entropy or --sampling.temperature, or lower --optim.lr",
    "dead-groups": "set --refill, take more --samples, or problems of another difficulty",
}


class Watch:
    """The rows of a run so far, and which rules are in the midst of an episode."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._said: dict[str, int] = {}  # the row at which a rule last held

    def see(self, row: Row) -> list[dict[str, Any]]:
        """Warnings that begin with this row, as watch.jsonl keeps them. Rows of steps that sample
        nothing are passed over.
        """
        if not {"reward", "dead_groups"} & row.keys():
            return []
        self.rows.append(row)
        found = []
        for rule, look in RULES.items():
            if (seen := look(self.rows)) is None:
                continue
            last = self._said.get(rule)
            self._said[rule] = len(self.rows)
            if last is None or len(self.rows) - last > WINDOW:
                text, figures = seen
                message = f"{text}; {TRY[rule]}"
                found.append(
                    {"step": row["step"], "rule": rule, "message": message, "figures": figures}
                )
        return found

    def replay(self, rows: Iterable[Row]) -> None:
        """Come to know what was logged before a resume, without saying it again."""
        for row in rows:
            self.see(row)


def shaped_reward(rows: list[Row]) -> Seen | None:
    """Since correctness was best, has it fallen while a part of the reward rose?"""
    blocks = [rows[at : at + WINDOW] for at in range(0, len(rows) - 2 * WINDOW + 1, WINDOW)]
    known = [block for block in blocks if _values(block, "accuracy")]
    if not known:
        return None
    best, now = max(known, key=lambda block: _mean(block, "accuracy")), rows[-WINDOW:]
    fall = _rise(now, best, "accuracy")
    if fall is None or fall < LEAST_FALL:
        return None
    for name in sorted(name for name in now[-1] if name == "reward" or name.startswith("reward/")):
        rise = _rise(best, now, name)
        if rise is not None and rise >= LEAST_RISE * max(1.0, abs(_mean(best, name))):
            return (
                f"{_called(name)} rose {_from_to(best, now, name)} while correctness fell "
                f"{_from_to(best, now, 'accuracy')}",
                _compared(best, now, name, "accuracy"),
            )
    return None


def length(rows: list[Row]) -> Seen | None:
    """Do completions grow without more of them being right, or run into the limit?"""
    if len(rows) < 2 * WINDOW:
        return None
    first, now = rows[:WINDOW], rows[-WINDOW:]
    grown = _rise(first, now, "length")
    doubled = grown is not None and _mean(now, "length") >= LENGTH_FACTOR * _mean(first, "length")
    if doubled and _rise(first, now, "accuracy") is None:
        return (
            f"completions grew {_from_to(first, now, 'length')} tokens and no more of them are "
            "right",
            _compared(first, now, "length", "accuracy"),
        )
    cut = _rise(first, now, "truncated")
    if cut is not None and cut >= TRUNCATED_RISE and _mean(first, "truncated") <= TRUNCATED_USUAL:
        return (
            f"the share of completions cut at the limit rose {_from_to(first, now, 'truncated')}",
            _compared(first, now, "truncated", "length"),
        )
    return None


def same_answer(rows: list[Row]) -> Seen | None:
    """Is one text most of what is sampled?"""
    last = [row.get("most_common", 0.0) for row in rows[-SHORT:]]
    if len(last) < SHORT or min(last) < DOMINANT:
        return None
    return (
        f"one and the same text is {fmean(last):.0%} of the completions of {SHORT} steps",
        {"most_common": fmean(last)},
    )


def entropy(rows: list[Row]) -> Seen | None:
    """Has the policy stopped exploring?"""
    rows = [row for row in rows if "entropy" in row]  # a step that trains nothing has none
    if len(rows) < 2 * WINDOW:
        return None
    first, now = rows[:WINDOW], rows[-WINDOW:]
    if _mean(now, "entropy") >= ENTROPY_LEFT * _mean(first, "entropy"):
        return None
    return (
        f"entropy fell {_from_to(first, now, 'entropy')} nats a token, so samples of a prompt are "
        "much alike",
        _compared(first, now, "entropy"),
    )


def dead_groups(rows: list[Row]) -> Seen | None:
    """Was there nothing to learn from?"""
    last = rows[-SHORT:]
    if len(last) < SHORT or any(row.get("dead_groups", 0.0) < 1.0 for row in last):
        return None
    right = f" ({_mean(last, 'accuracy'):.0%} right)" if _values(last, "accuracy") else ""
    return (
        f"for {SHORT} steps the completions of every prompt were all right or all wrong{right}",
        {"dead_groups": 1.0}
        | ({"accuracy": _mean(last, "accuracy")} if _values(last, "accuracy") else {}),
    )


RULES: dict[str, Callable[[list[Row]], Seen | None]] = {
    "shaped-reward": shaped_reward,
    "length": length,
    "same-answer": same_answer,
    "entropy": entropy,
    "dead-groups": dead_groups,
}


def _values(rows: list[Row], name: str) -> list[float]:
    """The figure where it is known in at least half of the rows; what applies to some prompts only
    is missing from steps without them.
    """
    found = [row[name] for row in rows if name in row]
    return found if 2 * len(found) >= len(rows) and len(found) > 1 else []


def _mean(rows: list[Row], name: str) -> float:
    return fmean(_values(rows, name))


def _rise(before: list[Row], after: list[Row], name: str) -> float | None:
    """How much higher the mean is after than before; None where that is not sure."""
    old, new = _values(before, name), _values(after, name)
    if not old or not new:
        return None
    difference = fmean(new) - fmean(old)
    error = math.sqrt(variance(old) / len(old) + variance(new) / len(new))
    return difference if difference > 0 and difference >= SURE * error else None


def _compared(before: list[Row], after: list[Row], *names: str) -> dict[str, float]:
    return {
        name + end: _mean(rows, name)
        for name in names
        for rows, end in ((before, "/before"), (after, ""))
        if _values(rows, name)
    }


def _from_to(before: list[Row], after: list[Row], name: str) -> str:
    return f"from {_mean(before, name):.3g} to {_mean(after, name):.3g}"


def _called(name: str) -> str:
    return "the reward" if name == "reward" else f"the reward's part {name.removeprefix('reward/')}"
