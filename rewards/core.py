"""What every reward shares: the protocol, the per-sample result, and reading texts and columns.

Departs from TRL in one respect: TRL's protocol returns one float a sample; here `score` also keeps
whether the answer was *correct* (raw 0 or 1), the unweighted *parts* and how the judging ended,
and `__call__` hands TRL the floats alone.
"""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

logger = logging.getLogger("rewards")

Outcome = Literal["ok", "unscorable", "timeout", "memory", "crash"]

# Outcomes of every sample this process has scored, by reward: totals["accuracy"]["timeout"] -> 3.
totals: dict[str, Counter[str]] = {}


@dataclass(frozen=True, kw_only=True)
class Score:
    """The result of one sample.

    value: the shaped reward; None where the reward does not apply. correct: raw 1.0 or 0.0 where
    this reward judges correctness, else None. parts: the unweighted parts by name. outcome: how
    the judging ended; anything but "ok" is counted and logged.
    """

    value: float | None
    correct: float | None = None
    parts: dict[str, float | None] = field(default_factory=dict)
    outcome: Outcome = "ok"


class Reward(ABC):
    """A callable `(completions, **columns) -> list[float | None]`, one value a completion, order
    kept.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Columns without which it judges nothing."""

    @property
    def inner(self) -> tuple["Reward", ...]:
        """The rewards it is made of."""
        return ()

    def with_inner(self, inner: Sequence["Reward"]) -> "Reward":
        """The same reward made of others, one for each of `inner`."""
        return self

    def part_names(self) -> tuple[str, ...]:
        """The names in the `parts` of its scores."""
        return (self.name,)

    def needed(self, row: Mapping[str, Any]) -> frozenset[str]:
        """Columns that must not be null in this row of a data set."""
        return frozenset(self.needs)

    @property
    def __name__(self) -> str:
        """TRL and its trackers label a reward by its `__name__`."""
        return self.name

    @abstractmethod
    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        """Score each completion (a string or a list of chat messages); columns are lists of the
        same length.
        """

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [score.value for score in self.score(completions, **columns)]


def text_of(completion: Any) -> str:
    """The text to judge: the string itself, or the content of the last assistant message.

    Messages without an assistant among them are read by their last one; a content of several parts
    is joined from its text parts; a content of None (a bare tool call) is empty. Raises TypeError
    for anything else.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, dict):
        completion = [completion]
    if isinstance(completion, (list, tuple)) and all(isinstance(m, dict) for m in completion):
        if not completion:
            return ""
        assistant = [m for m in completion if m.get("role", "assistant") == "assistant"]
        content = (assistant or completion)[-1].get("content")
        if content is None:
            return ""
        if isinstance(content, str):
            return content
        if isinstance(content, (list, tuple)):
            return "".join(p.get("text") or "" for p in content if isinstance(p, dict))
    raise TypeError(
        "a completion must be a string or a list of messages like "
        f'[{{"role": "assistant", "content": "..."}}], not {type(completion).__name__}'
    )


def column(name: str, count: int, columns: dict[str, Any], *, reward: str) -> list[Any]:
    """The column `name` as a list of `count` entries; raises ValueError that names what was given
    instead.
    """
    if name not in columns:
        given = ", ".join(sorted(columns)) or "none"
        raise ValueError(
            f"the reward {reward!r} needs the column {name!r}, one entry per completion; "
            f"columns given: {given}. Rename the data set's column, or pass {name}=[...]"
        )
    values = list(columns[name])
    if len(values) != count:
        raise ValueError(
            f"the column {name!r} has {len(values)} entries for {count} completions "
            f"(reward {reward!r}); pass one entry per completion"
        )
    return values


def lengths(texts: Sequence[str], columns: dict[str, Any], *, reward: str) -> list[int]:
    """Length of each completion: in tokens where `completion_ids` are given, else in characters."""
    if columns.get("completion_ids") is None:
        return [len(text) for text in texts]
    ids = column("completion_ids", len(texts), columns, reward=reward)
    return [len(row) for row in ids]


def tally(name: str, outcomes: Sequence[str]) -> None:
    """Count a batch's outcomes into `totals` and log one summary line if any was not "ok"."""
    counts = Counter(outcomes)
    total = totals.setdefault(name, Counter())
    total.update(counts)
    bad = {outcome: n for outcome, n in sorted(counts.items()) if outcome != "ok"}
    if bad:
        summary = ", ".join(f"{n} {outcome}" for outcome, n in bad.items())
        logger.warning("reward %s: of %d samples %s", name, len(outcomes), summary)
