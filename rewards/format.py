"""Format: is the whole text `<think>…</think>` followed by `<answer>…</answer>`?

Departs from the common regular expression `^<think>.*?</think>\\s*<answer>.*?</answer>$`: with
MULTILINE its `$` accepts a tail after any line, and its dots swallow a second pair of tags.
Counting the tags and comparing positions is exact and linear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rewards.core import Reward, Score, text_of

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def follows_format(text: str) -> bool:
    """True iff nothing but white space stands before, between and after the two blocks and each
    tag occurs once.
    """
    text = text.strip()
    if any(text.count(tag) != 1 for tag in TAGS):
        return False
    think_end = text.index("</think>")
    answer = text.index("<answer>")
    return (
        text.startswith("<think>")
        and text.endswith("</answer>")
        and think_end < answer
        and not text[think_end + len("</think>") : answer].strip()
    )


@dataclass(frozen=True, kw_only=True)
class Format(Reward):
    """1.0 iff the whole text has the R1 format, else 0.0 (DeepSeek-R1, 2501.12948, section 2.2.2).

    What stands inside the tags is not judged, so empty blocks pass: accuracy is another reward's
    business.
    """

    name: ClassVar[str] = "format"

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        values = [float(follows_format(text_of(c))) for c in completions]
        return [Score(value=value, parts={self.name: value}) for value in values]
