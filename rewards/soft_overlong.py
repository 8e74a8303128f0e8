"""Soft overlong punishment: a completion that nears its limit loses reward gradually (DAPO,
2503.14476, equation 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rewards.core import Reward, Score, lengths, text_of


@dataclass(frozen=True, kw_only=True)
class SoftOverlong(Reward):
    """0.0 up to max_len − cache, then linear to −1.0 at max_len, −1.0 beyond.

    max_len, cache: in tokens where `completion_ids` are given, else in characters. Raises
    ValueError unless 0 <= cache <= max_len and max_len >= 1.
    """

    name: ClassVar[str] = "soft_overlong"
    max_len: int
    cache: int

    def __post_init__(self) -> None:
        if self.max_len < 1 or not 0 <= self.cache <= self.max_len:
            raise ValueError(
                "0 <= cache <= max_len and max_len >= 1 must hold, "
                f"not cache={self.cache}, max_len={self.max_len}"
            )

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        texts = [text_of(c) for c in completions]
        values = [self._penalty(n) for n in lengths(texts, columns, reward=self.name)]
        return [Score(value=value, parts={self.name: value}) for value in values]

    def _penalty(self, length: int) -> float:
        over = length - (self.max_len - self.cache)
        if over <= 0:
            return 0.0
        return -1.0 if over >= self.cache else -over / self.cache
