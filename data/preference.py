"""Preference pairs: from the forms of public sets to prompt, chosen, rejected, and on to what
several stages read, so that a recipe's SFT, reward model and KTO share one data set.

| use | columns |
|---|---|
| `pairs` | prompt, chosen, rejected, perhaps margin, scores, solution |
| `kto` | prompt, completion, label: each pair gives a desirable row and an undesirable one |
| `sft` | prompt, completion: the chosen one |

PPO and GRPO read the prompt of any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any

from data.dialogues import common_prefix, from_transcript, normalise
from data.equations import plain_number
from data.left_out import Unusable
from data.rows import Message, Row, assistant, user

USES = ("pairs", "kto", "sft")
# A margin, what a judge gave each answer, a gold answer.
TELLING = ("margin", "score_chosen", "score_rejected", "solution")


def preference(row: Row) -> Row:
    """Pairs: strings beside a prompt (UltraFeedback), whole chats, or whole transcripts (HH-RLHF).

    Whole dialogues give their common prefix as the prompt. Public sets hold some pairs of no use:
    Unusable for two equal answers, an empty prompt or answer, dialogues that open differently.
    TRL's own columns of messages (prompt, chosen, rejected) pass as they are, for the validator,
    but for a prompt that both answers repeat. What tells the better one travels along (`TELLING`).
    """
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    told = {name: said for name in TELLING if (said := _told(name, row.get(name))) is not None}
    if isinstance(prompt, list) and isinstance(chosen, list):
        return _explicit(normalise(prompt), normalise(chosen), normalise(rejected)) | told
    if prompt is None and isinstance(chosen, str):
        chosen, rejected = from_transcript(chosen), from_transcript(rejected)
    if isinstance(chosen, list):
        chosen, rejected = normalise(chosen), normalise(rejected)
        if isinstance(prompt, str) and chosen[:1] and chosen[0]["role"] == "assistant":
            prompt = user(prompt)
        else:
            stated = prompt.strip() if isinstance(prompt, str) else ""
            prompt, chosen, rejected = common_prefix(chosen, rejected)
            if prompt and not any(stated in (each["content"] or "") for each in prompt):
                raise Unusable("with a prompt that is not in their dialogues")
    else:
        prompt = user(prompt) if isinstance(prompt, str) else normalise(prompt)
        chosen, rejected = assistant(chosen.strip()), assistant(rejected.strip())
    _check_pair(prompt, chosen, rejected)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | told


def _told(name: str, value: Any) -> Any:
    """What a row says in such a column, of one kind in all rows; None where it is of another."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if name == "solution":
        return plain_number(value) if number or isinstance(value, str) else None
    return value if number or name == "margin" else None


def _explicit(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> Row:
    count = len(prompt)
    if chosen[:count] == rejected[:count] == prompt:
        chosen, rejected = chosen[count:], rejected[count:]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _check_pair(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> None:
    texts = [[(each["content"] or "").strip() for each in side] for side in (chosen, rejected)]
    if texts[0] == texts[1]:
        raise Unusable("with chosen and rejected the same")
    if not all(side and all(side) for side in texts):
        raise Unusable("with an empty answer")
    if not prompt:
        raise Unusable("with dialogues that open differently")
    if not all((each["content"] or "").strip() for each in prompt):
        raise Unusable("with an empty turn in the prompt")


def paired(rows: Iterable[Row], use: str | None) -> Iterator[Row]:
    """Rows of prompt, chosen, rejected as the use wants them; None: as they are."""
    for row in rows:
        if use == "kto":
            for column, label in (("chosen", True), ("rejected", False)):
                yield {"prompt": row.get("prompt"), "completion": row.get(column), "label": label}
        elif use == "sft":
            yield {"prompt": row.get("prompt"), "completion": row.get("chosen")}
        else:
            yield row
