"""What a stage's reward gives to texts that no model wrote: whether it looks at the text at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import data
from align.stages.rolled import Rolled, Roller, judged
from data.reward_probes import answers_in, in_tags
from data.reward_reads import columns_read
from data.reward_scores import FORMATS

ANSWERS = 3  # columns tried as answers


def probed(
    roller: Roller, groups: Sequence[Rolled]
) -> list[tuple[float | None, dict[str, float | None]]]:
    """Value and parts of each text, for the first group's row. Nothing without a group, or where
    all earn the same low value and the reward reads columns: the right text may not be among these.

    Raises RewardError.
    """
    if not groups:
        return []
    row = roller.prompts.rows[groups[0].row]
    answers = answers_in({name: row[name] for name in roller.prompts.columns})[:ANSWERS]
    written = [form.replace("{solution}", answer) for answer in answers for form in FORMATS]
    texts = ["", *written, in_tags(row), "again and " * 40]
    chat = not isinstance(row["prompt"], str)
    completions = [data.rows.assistant(text) for text in texts] if chat else texts
    encode = roller.context.tokenizer
    ids = [encode(text, add_special_tokens=False)["input_ids"] or [0] for text in texts]
    rows = [row] * len(texts)
    scores = judged(roller.reward, completions, ids, rows, roller.prompts.columns)
    values = {score.value for score in scores}
    if len(values) == 1 and (values.pop() or 0.0) <= 0 and _reads(roller, row, texts[1]):
        return []
    return [(score.value, score.parts) for score in scores]


def _reads(roller: Roller, row: Mapping[str, Any], text: str) -> bool:
    """Whether the reward looks into the row at all."""
    return bool(columns_read(roller.reward, [row], [text]))
