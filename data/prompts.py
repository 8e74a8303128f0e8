"""Prompt styles: the question alone, with the R1 system prompt, or as R1-Zero's plain string.

| style | prompt | for |
|---|---|---|
| `chat` | `[user]`, plus `[system]` where one is given | instruct models |
| `r1` | `[system: think first, then answer], [user]` | instruct models that do not know the tags |
| `r1-zero` | one string, `…User: question\\nAssistant:\\n` | base models, no chat template |

The wording follows the R1-Zero template in substance (DeepSeek-R1, 2501.12948, table 1): it fixes
the structure and says nothing about the content. Departure: common copies end the prompt in
`<think>`. Ours does not, since the format reward reads the completion alone and would then never
see the opening tag.
"""

from __future__ import annotations

from typing import Literal, get_args

from data.rows import CONTENT_COLUMNS, DataError, Message, Row, message

Style = Literal["chat", "r1", "r1-zero"]
STYLES: tuple[str, ...] = get_args(Style)

STRUCTURE = (
    "The user asks a question and the assistant solves it. The assistant first thinks the problem "
    "through and then gives the user the answer. The thinking stands inside <think> </think> and "
    "the answer inside <answer> </answer>, in this form: "
    "<think> the thinking </think> <answer> the answer </answer>"
)
R1_SYSTEM = f"You are the assistant in a conversation with a user. {STRUCTURE}"
R1_ZERO = (
    f"A conversation between a user and an assistant. {STRUCTURE}\nUser: {{question}}\nAssistant:\n"
)


def worked(thinking: str, answer: str) -> str:
    """A completion in the format that the format reward wants."""
    return f"<think>{thinking.strip()}</think>\n<answer>{answer.strip()}</answer>"


def check_style(style: str, system: str | None) -> None:
    """Raises DataError for an unknown style, or a system prompt beside one that has its own."""
    if style not in STYLES:
        raise DataError(f"style={style!r} is unknown; the styles are {', '.join(STYLES)}")
    if style != "chat" and system is not None:
        raise DataError(
            f"style={style!r} brings its own system text; leave system= out, or use style='chat'"
        )


def dress(row: Row, *, style: Style, system: str | None) -> Row:
    """The row with its prompt in the given style.

    `system`: None keeps the row's own system prompt, text replaces it, the empty string drops it.
    Raises DataError where a dialogue of several turns is to become one R1-Zero string.
    """
    if style == "r1-zero":
        return _plain(row)
    text = R1_SYSTEM if style == "r1" else system
    if text is None:
        return row
    return row | {
        column: _with_system(row[column], text)
        for column in ("prompt", "messages")
        if isinstance(row.get(column), list)
    }


def _with_system(messages: list[Message], text: str) -> list[Message]:
    rest = [each for each in messages if each["role"] != "system"]
    return [message("system", text), *rest] if text else rest


def _plain(row: Row) -> Row:
    """Chat columns as strings; `messages` of one exchange becomes prompt and completion."""
    row = dict(row)
    chat = row.pop("messages", None)
    if isinstance(chat, list):
        row |= {"prompt": chat[:-1], "completion": chat[-1:]}
    for column in CONTENT_COLUMNS:
        if isinstance(row.get(column), list):
            text = _single(row[column], "user" if column == "prompt" else "assistant")
            row[column] = R1_ZERO.format(question=text) if column == "prompt" else text
    return row


def _single(messages: list[Message], role: str) -> str:
    turns = [each for each in messages if each["role"] != "system"]
    if len(turns) != 1 or turns[0]["role"] != role:
        roles = ", ".join(each["role"] for each in turns) or "nothing"
        raise DataError(
            f"style='r1-zero' writes one question and one answer as plain text; here are turns of "
            f"{roles}. Use style='chat' or 'r1' for dialogues."
        )
    return turns[0]["content"]
