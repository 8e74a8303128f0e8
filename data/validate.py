"""Checks before the first step: is every row what the stage needs?

`check_rows` names the first bad row, its column, what was expected and what was seen.
`check_reward`, the same question put to the reward, stands in `reward_check`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

import rewards
from data.reward_check import RewardCheck, RewardCheckError, check_reward
from data.rows import ROLES, DataError, RowError, show

__all__ = [
    "KINDS",
    "Kind",
    "RewardCheck",
    "RewardCheckError",
    "RowError",
    "RowReport",
    "check_reward",
    "check_rows",
]

Kind = Literal["sft", "grpo", "ppo", "preference", "reward_model", "kto", "distill", "evaluate"]
KINDS: tuple[str, ...] = get_args(Kind)

# What may follow what. Strict alternation but for tools, which answer an assistant and are answered
# by it.
_AFTER = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_NEEDS: dict[str, tuple[str, ...]] = {
    "grpo": ("prompt",),
    "ppo": ("prompt",),
    "distill": ("prompt",),
    "evaluate": ("prompt", "solution"),
    "preference": ("prompt", "chosen", "rejected"),
    "reward_model": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "label"),
}
# Read as well where it is a column, and then good in every row.
_ALSO = {"grpo": "solution", "ppo": "solution", "preference": "margin", "reward_model": "margin"}


@dataclass(frozen=True, kw_only=True)
class RowReport:
    """rows: those checked, all good. duplicates: those equal to an earlier one in every column the
    stage reads.
    """

    rows: int
    duplicates: int


def check_rows(
    rows: Iterable[Mapping[str, Any]], kind: Kind, reward: rewards.Reward | None = None
) -> RowReport:
    """Checks every row for a stage of this kind.

    sft: prompt and completion, or messages. grpo, ppo: prompt, and solution non-empty in every row
    where it is a column, but for null where the reward needs none (see `rewards.Where`). evaluate:
    prompt, solution. preference, reward_model: prompt, chosen, rejected, the last two different and
    neither with the prompt in it; margin a finite number in every row where it is a column. kto:
    prompt, completion, label, both labels among the rows. distill: prompt, or messages whose last
    answer is left out.
    Raises RowError for the first bad row, DataError for no rows, an unknown kind, or a label that
    no row has.
    """
    if kind not in KINDS:
        raise DataError(f"kind={kind!r} is unknown; the kinds are {', '.join(KINDS)}")
    seen: set[bytes] = set()
    labels: set[bool] = set()
    count = 0
    for index, row in enumerate(rows):
        read = _check_row(index, row, kind, reward)
        text = json.dumps({column: row[column] for column in read}, sort_keys=True, default=str)
        seen.add(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        if kind == "kto":
            labels.add(row["label"])
        count += 1
    if not count:
        raise DataError(f"there are no rows to use for {kind}")
    if len(labels) == 1:
        raise DataError(
            f"column 'label': kto learns from desirable (true) and undesirable (false) rows, and "
            f"all {count} have {str(*labels).lower()}; add rows of the other label, as in "
            "--data pos.jsonl+neg.jsonl?use=kto"
        )
    return RowReport(rows=count, duplicates=count - len(seen))


def _check_row(
    index: int, row: Mapping[str, Any], kind: str, reward: rewards.Reward | None
) -> tuple[str, ...]:
    """The columns that the stage reads, once they are known to be good."""
    if not isinstance(row, Mapping):
        raise RowError(
            row=index, column="(the row)", expected="an object of columns", seen=show(row)
        )
    # A null column is an absent one: a mixture unites the columns of its sources.
    instead = {"sft": "completion", "distill": "prompt"}.get(kind)  # of which messages stand
    if instead and row.get("messages") is not None and row.get(instead) is None:
        _check_messages(index, "messages", row["messages"], before=None, last="assistant")
        return ("messages",)
    columns = _NEEDS.get(kind, ("prompt", "completion"))
    also = _ALSO.get(kind)
    if also in row and not (also == "solution" and _spared(row, reward)):
        columns = (*columns, also)
    for column in columns:
        if row.get(column) is None:
            hint = " (or messages)" if instead else ""
            if column == also and reward is not None:
                hint = (
                    f", as the reward {reward.name} reads it in every row; gate the part that does "
                    'with rewards.Where(reward=…, equals=("math",))'
                )
            if column == "prompt" and "rejected" in columns and isinstance(row.get("chosen"), list):
                hint = ", the messages that both dialogues open with in a column of their own"
            have = ", ".join(name for name, value in row.items() if value is not None) or "none"
            seen = "null" if column in row else f"no such column; there are: {have}"
            if kind in ("sft", "kto") and {"chosen", "rejected"} <= row.keys():
                seen += f". Pairs are read as such rows with --data FILE?use={kind}"
            raise RowError(
                row=index, column=column, expected=f"a value, for {kind}{hint}", seen=seen
            )
    _check_prompt(index, row["prompt"], empty=kind in ("sft", "kto"))
    for column in columns[1:]:
        _check_column(index, row, column)
    if "rejected" in columns and _stripped(row["chosen"]) == _stripped(row["rejected"]):
        raise RowError(
            row=index,
            column="rejected",
            expected="an answer other than chosen",
            seen="the same one",
        )
    return columns


def _spared(row: Mapping[str, Any], reward: rewards.Reward | None) -> bool:
    """Whether the row has no gold answer and the reward wants none of it."""
    return reward is not None and row["solution"] is None and "solution" not in reward.needed(row)


def _stripped(answer: Any) -> Any:
    """White space at the ends aside: a pair that differs in nothing else teaches nothing."""
    if isinstance(answer, str):
        return answer.strip()
    return [(each["role"], each["content"].strip()) for each in answer]


def _check_prompt(index: int, prompt: Any, *, empty: bool) -> None:
    if not isinstance(prompt, str):
        _check_messages(index, "prompt", prompt, before=None, last="a turn that awaits an answer")
    elif not prompt.strip() and not empty:
        raise RowError(row=index, column="prompt", expected="text", seen=show(prompt))


def _check_column(index: int, row: Mapping[str, Any], column: str) -> None:
    value = row[column]

    def bad(expected: str) -> NoReturn:
        raise RowError(row=index, column=column, expected=expected, seen=show(value))

    if column == "label":
        # An int 0 or 1 would pass for a bool in Python and not in the losses.
        if not isinstance(value, bool):
            bad("true or false")
    elif column == "margin":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            bad("a finite number")
    elif column == "solution" or isinstance(row["prompt"], str):
        if not isinstance(value, str) or not value.strip():
            text = "text that is not empty"
            bad(text if column == "solution" else f"{text}, as the prompt is text")
    else:
        if isinstance(value, list) and value[: len(row["prompt"])] == row["prompt"]:
            bad("the answer alone, without the messages of the prompt before it")
        _check_messages(index, column, value, before=row["prompt"][-1]["role"], last="assistant")


def _check_messages(
    index: int, column: str, messages: Any, *, before: str | None, last: str
) -> None:
    def bad(where: str, expected: str, seen: object) -> NoReturn:
        raise RowError(row=index, column=f"{column}{where}", expected=expected, seen=show(seen))

    if not isinstance(messages, list) or not messages:
        bad("", "a list of messages with role and content", messages)
    previous = before
    for place, each in enumerate(messages):
        where = f"[{place}]"
        if not isinstance(each, Mapping) or "role" not in each or "content" not in each:
            bad(where, "a message with role and content", each)
        role, content = each["role"], each["content"]
        if role not in ROLES:
            bad(f"{where}.role", f"one of {', '.join(ROLES)}", role)
        if role not in _AFTER[previous]:
            bad(f"{where}.role", f"{' or '.join(_AFTER[previous])} {_after(previous)}", role)
        if not isinstance(content, str) or not content.strip():
            bad(f"{where}.content", "text that is not empty", content)
        previous = role
    if previous == "system" or (previous == "assistant") != (last == "assistant"):
        bad(f"[{len(messages) - 1}].role", f"{last}, at the end", previous)


def _after(role: str | None) -> str:
    return "at the start" if role is None else f"after {role}"
