"""Repetition: a penalty for saying the same n words again (2502.03373, section 4.2, as Open R1 has
it).

Departs from Open R1 where a text is Chinese, Japanese or Korean: its words are not separated by
spaces (or, in Korean, are inflected), so n-grams are taken over characters. English counts without
regard to case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rewards.core import Reward, Score, text_of
from rewards.scripts import CJK, share


def units(text: str) -> list[str]:
    """What n-grams are made of: words between white space, or characters where at least half of
    the letters are CJK.
    """
    words = text.lower().split()
    return list("".join(words)) if share(text, CJK) >= 0.5 else words


@dataclass(frozen=True, kw_only=True)
class Repetition(Reward):
    """max_penalty × (1 − distinct / total n-grams); 0.0 for a text with fewer than n units.

    n: units in an n-gram. max_penalty: the value approached by a text that only repeats itself,
    zero or negative. Raises ValueError for a positive max_penalty (it would reward repetition) and
    for n below 1.
    """

    name: ClassVar[str] = "repetition"
    n: int = 3
    max_penalty: float = -0.1

    def __post_init__(self) -> None:
        if self.max_penalty > 0:
            raise ValueError(
                f"max_penalty must be zero or negative, not {self.max_penalty}: "
                f"a positive one rewards repetition; did you mean max_penalty={-self.max_penalty}?"
            )
        if self.n < 1:
            raise ValueError(f"n must be at least 1 unit, not {self.n}")

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        values = [self._penalty(text_of(c)) for c in completions]
        return [Score(value=value, parts={self.name: value}) for value in values]

    def _penalty(self, text: str) -> float:
        row = units(text)
        total = len(row) - self.n + 1
        if total <= 0:
            return 0.0
        distinct = len(set(zip(*(row[i:] for i in range(self.n)), strict=False)))
        # Adding 0.0 turns the -0.0 of a text without repetition into 0.0.
        return self.max_penalty * (1 - distinct / total) + 0.0
