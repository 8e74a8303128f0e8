"""Does a reward differ between completions at all? A constant one makes every group dead."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data.prompts import worked
from data.reward_scores import GOLD_FORMAT, RewardCheckError, drawn_rows, scores

# As unlike as completions can be: in length, form, language, script, mood, and what they repeat.
TEXTS = (
    "",
    "7",
    worked("Step 1: read the question. Step 2: work it out.\n- first\n- then", "42"),
    "First, let us see. Next, we add. Finally, the answer is \\boxed{7}.",
    "第一步：先读题。最后，答案是7。",
    "the the the the the the the the the the the the",
    "What a wonderful, delightful film! I loved it. 😀 Thank you, please come again.",
    "TERRIBLE. I hate it; the worst, most boring day of my life. Sorry, I cannot help with that.",
    '```python\nprint({"a": [1, 2.5, None]})\n```\nSee https://example.org/?q=1 & more.',
    "word " * 3000,
)
LONG = 200_000  # tokens that the last of them is said to have
ROWS = 8


def check_varies(rows: Sequence[Mapping[str, Any]], reward: Callable[..., Any]) -> None:
    """Raises RewardCheckError for a reward that applies to none of some rows, or gives all of these
    completions, and the rows' own golds, one and the same value above or below 0. (One that gives 0
    may wait for something rare.)
    """
    asked = drawn_rows(rows, ROWS)
    found = []
    for text in TEXTS:
        lengths = [[0] * (LONG if text is TEXTS[-1] else len(text))] * len(asked)
        found.append(scores(reward, asked, [text] * len(asked), ids=lengths))
    if all(row.get("solution") for row in asked):
        golds = [GOLD_FORMAT.replace("{solution}", str(row["solution"])) for row in asked]
        found.append(scores(reward, asked, golds))
    values = [score.value for each in found for score in each]
    if bad := [value for value in values if value is not None and not math.isfinite(value)]:
        raise RewardCheckError(
            f"the reward gives {bad[0]} for one of {len(TEXTS)} completions that were tried; it "
            "must be a finite number, or None where it does not apply"
        )
    kinds = set(values)
    if kinds == {None}:
        raise RewardCheckError(
            f"the reward applies to none of {len(asked)} rows that were tried (None for every "
            "completion): nothing would be learnt. Check its gates (rewards.Where) against the "
            f"rows' columns: {', '.join(asked[0])}"
        )
    if len(kinds) == 1 and kinds != {0.0}:
        raise RewardCheckError(
            f"the reward gives {values[0]:g} for every one of {len(found)} completions as unlike "
            "as the empty one, a gold answer and other languages: a constant reward teaches "
            "nothing. Check that it reads the completions"
        )
