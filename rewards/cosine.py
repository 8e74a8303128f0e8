"""Cosine: right answers earn more when short, wrong ones lose less when long (2502.03373, section
4.1).

Departs from Open R1 in judging correctness itself, through `Accuracy`: no trainer passes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rewards.accuracy import Accuracy
from rewards.core import Reward, Score, lengths, text_of


@dataclass(frozen=True, kw_only=True)
class Cosine(Reward):
    """v_min + ½ (v_max − v_min)(1 + cos(π · length / max_len)), bounds swapped for wrong answers,
    length clamped to max_len.

    With the defaults a right answer goes from 1.0 (short) to 0.8 (long), a wrong one from −0.5
    (short) to −0.1 (long). Lengths are tokens where `completion_ids` are given, else characters.
    Where the gold solution cannot be parsed there is no correctness to shape: the value is None (a
    sum counts it 0) and the outcome "unscorable". Raises ValueError for bounds in the wrong order.
    """

    name: ClassVar[str] = "cosine"
    needs: ClassVar[tuple[str, ...]] = ("solution",)
    max_len: int = 1000
    min_value_wrong: float = -0.5
    max_value_wrong: float = -0.1
    min_value_correct: float = 0.8
    max_value_correct: float = 1.0

    def __post_init__(self) -> None:
        if self.max_len < 1:
            raise ValueError(f"max_len must be at least 1, not {self.max_len}")
        for kind in ("wrong", "correct"):
            low, high = getattr(self, f"min_value_{kind}"), getattr(self, f"max_value_{kind}")
            if low > high:
                raise ValueError(
                    f"min_value_{kind}={low} is above max_value_{kind}={high}; swap them"
                )

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        texts = [text_of(c) for c in completions]
        judged = Accuracy().score(texts, **columns)
        counts = lengths(texts, columns, reward=self.name)
        scores = []
        for base, length in zip(judged, counts, strict=True):
            value = None if base.correct is None else self._shape(base.correct, length)
            scores.append(
                Score(
                    value=value,
                    correct=base.correct,
                    parts={self.name: value},
                    outcome=base.outcome,
                )
            )
        return scores

    def _shape(self, correct: float, length: int) -> float:
        if correct:
            low, high = self.min_value_correct, self.max_value_correct
        else:
            low, high = self.max_value_wrong, self.min_value_wrong
        progress = min(length, self.max_len) / self.max_len
        return low + 0.5 * (high - low) * (1 + math.cos(math.pi * progress))
