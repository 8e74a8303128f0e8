import pytest

from data import Arithmetic, DataError, RowError
from data.validate import KINDS, check_rows


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


CHAT = user("q") + assistant("a")
GOOD = {
    "sft": [
        {"prompt": user("q"), "completion": assistant("a")},
        {"messages": CHAT + CHAT},
        {"prompt": "", "completion": "a"},
        {"prompt": None, "completion": None, "messages": CHAT},
    ],
    "grpo": [{"prompt": user("q"), "solution": "1"}, {"prompt": "q"}, {"prompt": CHAT + user("r")}],
    "evaluate": [{"prompt": "q", "solution": "1"}],
    "preference": [
        {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b")},
        {"prompt": user("q"), "chosen": assistant("a") + CHAT, "rejected": assistant("b")},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ],
    "reward_model": [{"prompt": "q", "chosen": "a", "rejected": "b"}],
    "kto": [{"prompt": "q", "completion": "a", "label": False}],
}
SYSTEM = [{"role": "system", "content": "s"}]
TOOL = [{"role": "tool", "content": "7"}]

# kind, bad row, column, what was expected, what was seen
BAD = [
    ("sft", {"prompt": user("q")}, "completion", "messages", "no such column; there are: prompt"),
    ("sft", {"prompt": user("q"), "completion": None}, "completion", "a value", "null"),
    ("sft", {"prompt": user("q"), "completion": "a"}, "completion", "list of messages", "str 'a'"),
    (
        "sft",
        {"prompt": "q", "completion": assistant("a")},
        "completion",
        "as the prompt is text",
        "list",
    ),
    ("sft", {"prompt": "q", "completion": " "}, "completion", "text", "str ' '"),
    ("sft", {"messages": []}, "messages", "a list of messages", "list []"),
    ("sft", {"messages": "hello"}, "messages", "a list of messages", "str"),
    ("sft", {"messages": [CHAT]}, "messages[0]", "a message", "list"),
    ("sft", {"messages": user("q")}, "messages[0].role", "assistant, at the end", "'user'"),
    ("sft", {"messages": user("a") + CHAT}, "messages[1].role", "assistant after user", "'user'"),
    (
        "sft",
        {"messages": CHAT + assistant("b")},
        "messages[2].role",
        "user or tool after",
        "'assistant'",
    ),
    ("sft", {"messages": CHAT + SYSTEM}, "messages[2].role", "after assistant", "'system'"),
    ("sft", {"messages": assistant("a")}, "messages[0].role", "at the start", "'assistant'"),
    ("sft", {"messages": user("q") + TOOL + CHAT}, "messages[1].role", "after user", "'tool'"),
    ("sft", {"messages": user("") + assistant("a")}, "messages[0].content", "not empty", "str ''"),
    ("sft", {"messages": user("q") + assistant(None)}, "messages[1].content", "not empty", "None"),
    (
        "sft",
        {"messages": [{"from": "human", "value": "q"}]},
        "messages[0]",
        "role and content",
        "dict",
    ),
    ("sft", {"messages": [{"role": "bot", "content": "q"}]}, "messages[0].role", "one of", "'bot'"),
    ("grpo", {"question": "q"}, "prompt", "a value, for grpo", "there are: question"),
    ("grpo", {"prompt": " "}, "prompt", "text", "str ' '"),
    ("grpo", {"prompt": CHAT}, "prompt[1].role", "awaits an answer", "'assistant'"),
    ("grpo", {"prompt": SYSTEM}, "prompt[0].role", "awaits an answer", "'system'"),
    ("grpo", {"prompt": "q", "solution": None}, "solution", "a value", "null"),
    ("grpo", {"prompt": "q", "solution": ""}, "solution", "text", "str ''"),
    ("grpo", {"prompt": "q", "solution": 7}, "solution", "text", "int 7"),
    ("grpo", {"prompt": 3}, "prompt", "list of messages", "int 3"),
    ("grpo", "q", "(the row)", "object", "str 'q'"),
    ("evaluate", {"prompt": "q"}, "solution", "for evaluate", "no such column"),
    ("preference", {"prompt": "q", "chosen": "a"}, "rejected", "a value", "no such column"),
    (
        "preference",
        {"prompt": "q", "chosen": "a", "rejected": "a"},
        "rejected",
        "other than chosen",
        "the same",
    ),
    (
        "preference",
        {"prompt": user("q"), "chosen": user("a"), "rejected": user("b")},
        "chosen[0].role",
        "assistant after user",
        "'user'",
    ),
    ("reward_model", {"prompt": "q", "chosen": "", "rejected": "b"}, "chosen", "text", "str ''"),
    ("kto", {"prompt": "q", "completion": "a", "label": 1}, "label", "true or false", "int 1"),
    ("kto", {"prompt": "q", "completion": "a"}, "label", "a value", "no such column"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_good_rows_pass_and_are_counted(kind):
    report = check_rows(GOOD[kind], kind)
    assert (report.rows, report.duplicates) == (len(GOOD[kind]), 0)


@pytest.mark.parametrize(("kind", "row", "column", "expected", "seen"), BAD)
def test_the_first_bad_row_is_named_with_column_expected_and_seen(
    kind, row, column, expected, seen
):
    good = GOOD[kind][0]
    with pytest.raises(RowError) as error:
        check_rows([good, good, row, {}], kind)
    found = error.value
    assert (found.row, found.column) == (2, column)
    assert expected in found.expected
    assert seen in found.seen
    for part in ("row 2", column, found.expected, found.seen):
        assert part in str(found)


def test_tool_turns_may_stand_between_assistant_turns():
    messages = user("q") + assistant("call") + TOOL + TOOL + assistant("a")
    assert check_rows([{"messages": SYSTEM + messages}], "sft").rows == 1


def test_duplicates_are_counted_by_the_columns_the_stage_reads():
    rows = [{"prompt": "q", "solution": "1", "id": index} for index in range(3)]
    assert check_rows([*rows, {"prompt": "q", "solution": "2"}], "grpo").duplicates == 2


def test_a_table_of_a_source_passes_and_a_long_value_is_cut_short():
    rows = Arithmetic(size=20).rows()
    for kind in ("sft", "grpo", "evaluate"):
        assert check_rows(rows, kind).rows == 20
    with pytest.raises(RowError) as error:
        check_rows([{"prompt": "q", "solution": ["x" * 10_000]}], "grpo")
    assert len(str(error.value)) < 250


def test_no_rows_and_unknown_kinds_are_refused():
    with pytest.raises(DataError, match="no rows"):
        check_rows([], "sft")
    with pytest.raises(DataError, match=r"kind='dpo' is unknown.*preference"):
        check_rows([{}], "dpo")
