"""Language consistency: is the reasoning written in the language asked for? (DeepSeek-R1,
2501.12948, section 2.3.2)

Departs from the paper in measuring letters of the language's script, not words of the language:
that needs no word list and no language identification, separates English from Chinese exactly, and
cannot separate languages that share a script.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rewards.core import Reward, Score, text_of
from rewards.scripts import SCRIPTS, share


def reasoning_of(text: str) -> str:
    """What stands between `<think>` and `</think>` (or the end, where it is not closed); without
    tags the whole text.
    """
    before, tag, rest = text.partition("<think>")
    inside, closed, _ = (rest if tag else before).partition("</think>")
    return inside if tag or closed else text.replace("<answer>", " ").replace("</answer>", " ")


@dataclass(frozen=True, kw_only=True)
class LanguageConsistency(Reward):
    """Share, 0.0 to 1.0, of the reasoning's letters that are in the target language's script.

    Digits belong to every language: a reasoning of formulas alone, such as `7 * 3 = 21`, earns 1.0,
    so nothing is gained by strewing words in. One without letters and digits earns 0.0: silence is
    not consistency. The usual weight in a sum with accuracy is 0.2. Symbols such as x count as
    Latin letters, so Chinese reasoning full of formulas stays below 1.0. Raises ValueError for a
    language whose script is not known.
    """

    name: ClassVar[str] = "language_consistency"
    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in SCRIPTS:
            known = ", ".join(sorted(SCRIPTS))
            raise ValueError(f"no script is known for language={self.language!r}; known: {known}")

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        script = SCRIPTS[self.language]
        values = [_consistency(reasoning_of(text_of(c)), script) for c in completions]
        return [Score(value=value, parts={self.name: value}) for value in values]


def _consistency(reasoning: str, script: re.Pattern[str]) -> float:
    if any(map(str.isalpha, reasoning)):
        return share(reasoning, script)
    return float(any(map(str.isdigit, reasoning)))
