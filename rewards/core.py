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

LARGEST = 3.4e38  # of a float of 32 bits

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
    """Where it goes in figures; a class that gives none goes by its own."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Columns without which it judges nothing."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if not hasattr(cls, "name"):
            cls.name = cls.__name__

    @property
    def inner(self) -> tuple["Reward", ...]:
        """The rewards it is made of."""
        return ()

    @property
    def patience(self) -> float:
        """Seconds after which a stage gives a call up, for the first completion (`containment`)."""
        return sum(reward.patience for reward in self.inner) or 600.0

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
        scores = self.score(completions, **columns)
        check_scores(scores, completions, reward=self.name)
        return [score.value for score in scores]


def check_scores(scores: Any, completions: Sequence[Any], *, reward: str) -> None:
    """Raises ValueError unless there is one Score a completion, of finite numbers and None."""
    if not isinstance(scores, (list, tuple)):
        raise ValueError(f"the reward {reward!r} gave {_kind(scores)}, not a list of scores")
    if len(scores) != len(completions):
        raise ValueError(
            f"the reward gave {len(scores)} scores for {len(completions)} completions; "
            "it must return one for each, None where it does not apply"
        )
    for score, completion in zip(scores, completions, strict=True):
        if not isinstance(score, Score) or not isinstance(score.parts, Mapping):
            raise ValueError(
                f"the reward {reward!r} gave {_kind(score)}, not a rewards.Score with its parts"
            )
        for value in (score.value, score.correct, *score.parts.values()):
            if value is not None and not is_finite(value):
                raise ValueError(
                    f"the reward gave {_kind(value)} for the completion {str(completion)[:200]!r}; "
                    "it must be a finite number, or None where it does not apply"
                )


def is_finite(value: Any) -> bool:
    """Whether it is a number of Python's that stands for itself: no NaN, text, tensor, nor infinity
    in the 32 bits that training computes with.
    """
    return isinstance(value, (int, float)) and abs(value) <= LARGEST  # false of NaN


def _kind(value: Any) -> str:
    """`nan`, or `str 'a'` where it is no number."""
    if isinstance(value, float):
        return str(float(value))
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '…'}"


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
