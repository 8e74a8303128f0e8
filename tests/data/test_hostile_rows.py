"""Rows that no stage can use: each way from a file to the validator names the row, or counts it."""

import json

import pytest

from data import DataError, RowError, chat
from data.sources import Local
from data.validate import check_rows

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
GOOD = {"messages": [USER, ANSWER]}

# What stands in the second row's messages, and what is said.
MESSAGES = {
    "null": (None, r"2nd row, column 'prompt'.*\(or messages\)"),
    "null inside": ([USER, None], "2nd row .*a message is an object .*None"),
    "nested": ([[USER, ANSWER]], "2nd row .*a message is an object"),
    "nested deeper": ([USER, {"role": "assistant", "content": [ANSWER]}], "2nd row, column"),
    "parts": (
        [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}],
        "2nd row, column 'messages",
    ),
    "text": ("hello", "2nd row, column 'messages'"),
    "an object": (USER, "2nd row, column 'messages'"),
    "empty": ([], "2nd row, column 'messages'.*list of messages"),
    "a role unknown": ([{"role": "wizard", "content": "q"}, ANSWER], "2nd row .*with a role of"),
    "a role of another type": ([{"role": ["user"], "content": "q"}], "2nd row "),
    "no role": ([{"content": "q"}, ANSWER], "2nd row .*needs role and content"),
    "a system prompt alone": ([SYSTEM], r"2nd row, column 'messages\[0\].role'.*at the end"),
    "no answer": ([SYSTEM, USER], r"2nd row, column 'messages\[1\].role'.*assistant, at the end"),
    "content null": ([USER, {"role": "assistant", "content": None}], r"messages\[1\].content"),
    "content a number": ([USER, {"role": "assistant", "content": 4}], "2nd row, column 'messages"),
}


def rows_of(tmp_path, table):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return Local(path=str(path)).rows()


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_that_are_none_are_named_with_their_row(tmp_path, name):
    messages, said = MESSAGES[name]
    with pytest.raises(DataError, match=said):
        check_rows(rows_of(tmp_path, [GOOD, {"messages": messages}]), "sft")


@pytest.mark.parametrize("name", MESSAGES)
def test_a_file_of_such_messages_alone_is_no_better(tmp_path, name):
    with pytest.raises(DataError, match="1st row"):
        check_rows(rows_of(tmp_path, [{"messages": MESSAGES[name][0]}]), "sft")


@pytest.mark.parametrize(
    "solution", [["18"], {"value": 18}, True, [], {}], ids=["list", "object", "bool", "[]", "{}"]
)
def test_a_solution_of_another_type_is_refused_and_not_written_out(tmp_path, solution):
    """As text, a list would be `['18']`, which no answer is equal to."""
    table = [{"prompt": "q", "solution": solution}]
    with pytest.raises(RowError, match="1st row, column 'solution': expected text"):
        check_rows(rows_of(tmp_path, table), "grpo")


def test_numbers_as_solutions_are_written_out(tmp_path):
    table = [{"prompt": "q", "solution": each} for each in (18, 2.0, "1,450")]
    assert rows_of(tmp_path, table)["solution"] == ["18", "2", "1450"]


COLUMNS = {
    "a prompt that is a number": ({"prompt": 3, "solution": "1"}, "grpo", "column 'prompt'"),
    "a prompt that is an object": ({"prompt": {"text": "q"}}, "grpo", "column 'prompt'"),
    "a prompt that is null": ({"prompt": None, "solution": "1"}, "grpo", "column 'prompt'"),
    "a completion that is a number": ({"prompt": "q", "completion": 1}, "sft", "'completion'"),
    "a label that is text": (
        {"prompt": "q", "completion": "a", "label": "true"}, "kto", "column 'label'",
    ),
    "a question that is a number": ({"question": 1, "answer": "#### 1"}, "grpo", "1st row "),
    "a question that is null": ({"question": None, "answer": "1"}, "grpo", "column 'question'"),
    "an answer that is a list": ({"problem": "p", "answer": ["1"]}, "grpo", "1st row "),
    "one of several answers": ({"question": "q", "answer": ["1"]}, "grpo", "1st row .*'1'"),
    "an answer that is true": ({"question": "q", "answer": True}, "grpo", "1st row .*True"),
    "a result that is a list": (
        {"original_text": "q", "equation": "1+1", "ans": ["2"]}, "grpo", "1st row .*'2'",
    ),
    "chosen as a number": ({"prompt": "q", "chosen": 1, "rejected": "b"}, "preference", "1st row "),
    "numbers that are none": ({"nums": ["a"], "target": 3}, "grpo", "1st row "),
    "numbers that are null": ({"nums": [None], "target": 3}, "grpo", "1st row "),
    "a dialogue that is text": ({"conversations": "hello"}, "sft", "1st row "),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_another_type_are_named_with_their_row(tmp_path, name):
    row, kind, said = COLUMNS[name]
    with pytest.raises(DataError, match=said) as caught:
        check_rows(rows_of(tmp_path, [row]), kind)
    assert not isinstance(caught.value, chat.RenderError)
