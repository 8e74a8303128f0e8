"""Dialogues as messages: from/value spellings, HH-RLHF transcripts, common prefixes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from data.rows import Message, message

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}
_TURN = re.compile(r"\n\n(Human|Assistant):")


def normalise(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages spelt role/content or from/value, as role/content.

    Raises ValueError for another spelling or an unknown role; content is left as it is, for the
    validator to judge.
    """
    found = []
    for each in messages:
        if not isinstance(each, Mapping):
            raise ValueError(f"a message is an object with role and content, and here is {each!r}")
        # A table that united both spellings has nulls for the one not used.
        role = each.get("role") or each.get("from")
        if role not in _ROLES:
            raise ValueError(
                "a message needs role and content (or from and value), with a role of "
                f"{sorted(_ROLES)}: {each}"
            )
        content = each.get("content")
        found.append(message(_ROLES[role], each.get("value") if content is None else content))
    return found


def from_transcript(text: str) -> list[Message]:
    """`\\n\\nHuman: …\\n\\nAssistant: …` as messages; two turns of one speaker in a row are joined.

    Raises ValueError where the text does not open with a turn.
    """
    parts = _TURN.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if parts[0].strip() or len(parts) == 1:
        raise ValueError(
            "a transcript starts with 'Human:' or 'Assistant:'; other answers need their question "
            "in a column 'prompt'"
        )
    turns: list[Message] = []
    for speaker, content in zip(parts[1::2], parts[2::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = f"{turns[-1]['content']}\n\n{content.strip()}".strip()
        else:
            turns.append(message(role, content.strip()))
    return turns


def common_prefix(
    one: Sequence[Message], other: Sequence[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """The messages that two dialogues share, and what follows in each; the prompt ends before an
    assistant turn.

    Where one dialogue goes on after the point of difference, its rest stays whole.
    """
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    while shared and not (_answers(one, shared) and _answers(other, shared)):
        shared -= 1
    return list(one[:shared]), list(one[shared:]), list(other[shared:])


def _answers(turns: Sequence[Message], position: int) -> bool:
    return position < len(turns) and turns[position]["role"] == "assistant"
