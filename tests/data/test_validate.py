import pytest

import rewards
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
    "ppo": [{"prompt": user("q")}, {"prompt": "q", "chosen": "not read"}],
    "distill": [{"prompt": user("q")}, {"prompt": "q"}, {"messages": CHAT}],
    "evaluate": [{"prompt": "q", "solution": "1"}],
    "preference": [
        {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b")},
        {"prompt": user("q"), "chosen": assistant("a") + CHAT, "rejected": assistant("b")},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ],
    "reward_model": [{"prompt": "q", "chosen": "a", "rejected": "b"}],
    "kto": [
        {"prompt": "q", "completion": "a", "label": False},
        {"prompt": user("q"), "completion": assistant("a"), "label": True},
    ],
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
    ("reward_model", {"prompt": "q", "chosen": "a", "rejected": ""}, "rejected", "text", "str ''"),
    (
        "preference",
        {"prompt": "q", "chosen": "a", "rejected": "a "},
        "rejected",
        "other than chosen",
        "the same",
    ),
    (
        "reward_model",
        {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant(" a")},
        "rejected",
        "other than chosen",
        "the same",
    ),
    (
        "preference",
        {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("")},
        "rejected[0].content",
        "text that is not empty",
        "str ''",
    ),
    (
        "preference",
        {"prompt": user("q"), "chosen": assistant("a"), "rejected": []},
        "rejected",
        "a list of messages",
        "list []",
    ),
    (
        "preference",
        {"chosen": user("q") + assistant("a"), "rejected": user("r") + assistant("b")},
        "prompt",
        "the messages that both dialogues open with",
        "no such column; there are: chosen, rejected",
    ),
    (
        "reward_model",
        {"prompt": user("q"), "chosen": CHAT, "rejected": user("q") + assistant("b")},
        "chosen",
        "the answer alone, without the messages of the prompt",
        "list",
    ),
    (
        "preference",
        {"prompt": user("q"), "chosen": assistant("a"), "rejected": user("r") + assistant("b")},
        "rejected[0].role",
        "assistant after user",
        "'user'",
    ),
    *(
        (
            kind,
            {"prompt": "q", "chosen": "a", "rejected": "b", "margin": margin},
            "margin",
            expected,
            seen,
        )
        for kind in ("reward_model", "preference")
        for margin, expected, seen in (
            (float("nan"), "a finite number", "float nan"),
            (float("inf"), "a finite number", "float inf"),
            ("1", "a finite number", "str '1'"),
            (True, "a finite number", "bool True"),
            (None, "a value", "null"),
        )
    ),
    ("ppo", {"question": "q"}, "prompt", "a value, for ppo", "there are: question"),
    ("ppo", {"prompt": "q", "solution": ""}, "solution", "text", "str ''"),
    ("kto", {"prompt": "q", "completion": "", "label": True}, "completion", "text", "str ''"),
    ("kto", {"prompt": "q", "completion": "a", "label": 1}, "label", "true or false", "int 1"),
    ("kto", {"prompt": "q", "completion": "a", "label": 0}, "label", "true or false", "int 0"),
    (
        "kto",
        {"prompt": "q", "completion": "a", "label": "true"},
        "label",
        "true or false",
        "str 'true'",
    ),
    ("kto", {"prompt": "q", "completion": "a", "label": None}, "label", "a value", "null"),
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
    for part in ("3rd row", column, found.expected, found.seen):
        assert part in str(found)


@pytest.mark.parametrize("margin", [0, 1, -0.5])
def test_a_margin_is_any_finite_number(margin):
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "margin": margin}
    assert check_rows([row], "reward_model").rows == 1


@pytest.mark.parametrize(("label", "written"), [(True, "true"), (False, "false")])
def test_kto_wants_rows_of_both_labels(label, written):
    rows = [{"prompt": "q", "completion": f"a{index}", "label": label} for index in range(3)]
    with pytest.raises(DataError, match=f"column 'label'.* all 3 have {written}"):
        check_rows(rows, "kto")


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


MIXED = [
    {"prompt": "q", "solution": "1", "kind": "math"},
    {"prompt": "r", "solution": None, "kind": "general"},
    {"prompt": "s", "solution": "2", "kind": None},
]


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_a_null_solution_passes_where_a_gate_spares_the_row(kind):
    accuracy = rewards.Where(reward=rewards.Accuracy(), equals=("math",))
    for reward in (accuracy, rewards.WeightedSum(((1.0, accuracy), (0.5, rewards.Format())))):
        assert check_rows(MIXED, kind, reward).rows == 3
    assert check_rows(MIXED, kind, rewards.Format()).rows == 3


def judges(completions, solution, **columns):
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    "reward",
    [
        rewards.Accuracy(),
        rewards.WeightedSum(((1.0, rewards.Format()), (0.1, rewards.Cosine()))),
        rewards.Where(reward=rewards.Accuracy(), equals=("math", "general")),
        rewards.from_trl(judges),
    ],
)
def test_a_null_solution_that_a_reward_reads_is_refused_with_the_way_out(reward):
    with pytest.raises(RowError, match=r"2nd row, column 'solution'.*rewards\.Where") as error:
        check_rows(MIXED, "grpo", reward)
    assert error.value.row == 1


@pytest.mark.parametrize("solution", ["", 7])
def test_a_bad_solution_is_refused_where_no_reward_reads_it_too(solution):
    with pytest.raises(RowError, match="1st row, column 'solution'"):
        check_rows([{"prompt": "q", "solution": solution}], "grpo", rewards.Format())


def test_evaluation_wants_every_solution_whatever_the_reward():
    with pytest.raises(RowError, match="2nd row, column 'solution'"):
        check_rows(MIXED, "evaluate", rewards.Format())


def test_no_rows_and_unknown_kinds_are_refused():
    with pytest.raises(DataError, match="no rows"):
        check_rows([], "sft")
    with pytest.raises(DataError, match=r"kind='dpo' is unknown.*preference"):
        check_rows([{}], "dpo")
