"""What a stage's reward gives to texts that no model wrote: whether it looks at the text at all."""

from __future__ import annotations

from collections.abc import Sequence

import data
from align.stages.rolled import Rolled, Roller, judged


def probed(
    roller: Roller, groups: Sequence[Rolled]
) -> list[tuple[float | None, dict[str, float | None]]]:
    """Value and parts of each text, for the first group's row; nothing without a group.

    Raises RewardError.
    """
    if not groups:
        return []
    row = roller.prompts.rows[groups[0].row]
    gold = str(row.get("solution") or "42")
    texts = [
        "",
        gold,
        f"\\boxed{{{gold}}}",
        f"<think>\nFirst one, then the other.\n</think>\n<answer>\n{gold}\n</answer>",
        "again and " * 40,
    ]
    chat = not isinstance(row["prompt"], str)
    completions = [data.rows.assistant(text) for text in texts] if chat else texts
    encode = roller.context.tokenizer
    ids = [encode(text, add_special_tokens=False)["input_ids"] or [0] for text in texts]
    rows = [row] * len(texts)
    scores = judged(roller.reward, completions, ids, rows, roller.prompts.columns)
    return [(score.value, score.parts) for score in scores]
