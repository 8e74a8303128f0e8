"""Reasoning steps: does the text proceed in visible steps?

Departs from Open R1's expression, which counts "1. First, …" twice and misses a bullet on the
first line: here a numbered line or bullet together with the word that follows it is one step.
Chinese markers are counted too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rewards.core import Reward, Score, text_of

_ORDINAL = r"(?:First|Second|Third|Fourth|Fifth|Sixth|Seventh|Eighth|Ninth|Tenth)(?:ly)?"
_WORD = rf"(?:{_ORDINAL}|Next|Finally)"
_HAN = "一二三四五六七八九十"
_CHINESE = rf"步骤\s?(?:\d{{1,3}}|[{_HAN}]{{1,3}})|第[{_HAN}]{{1,3}}步?|第\d{{1,3}}步|下一步|最后"
_STEP = r"[Ss]tep \d{1,3}\s?\**[:：]"
_LINE = r"^[ \t]{0,16}(?:[-*•+]|\(?\d{1,3}[.)](?!\d)|\d{1,3}、)[ \t]{1,4}|^[ \t]{0,16}\d{1,3}、"
# A marker is a line's number or bullet (with a worded marker right after it, if any), or a worded
# marker on its own: with a comma anywhere ("First, we"), without one only where a line or a
# sentence begins ("Next we").
MARKER = re.compile(
    rf"(?:{_LINE})(?:\**(?:{_STEP}|{_WORD}\b|{_CHINESE}))?"
    rf"|{_STEP}|\b{_WORD}\**[,，:：]|(?:^|(?<=[.!?] ))\**{_WORD}\b(?= [a-z])|{_CHINESE}",
    re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class ReasoningSteps(Reward):
    """min(1, markers / target): full reward from `target` step markers on.

    Markers: `Step 1:`, numbered lines, bullets, First … Tenth, Next, Finally, and the Chinese
    步骤1, 第一, 下一步 and 最后. Raises ValueError for a target below 1.
    """

    name: ClassVar[str] = "reasoning_steps"
    target: int = 3

    def __post_init__(self) -> None:
        if self.target < 1:
            raise ValueError(f"target must be at least 1 step, not {self.target}")

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        values = [min(1.0, self._count(text_of(c)) / self.target) for c in completions]
        return [Score(value=value, parts={self.name: value}) for value in values]

    @staticmethod
    def _count(text: str) -> int:
        return sum(1 for _ in MARKER.finditer(text))
