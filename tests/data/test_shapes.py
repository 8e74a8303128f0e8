import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import (
    GSM8K,
    HHRLHF,
    BespokeStratos,
    Local,
    NuminaMathTIR,
    UltraFeedback,
    shapes,
)


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def local(tmp_path, *rows, **fields):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return Local(path=str(path), **fields)


STRATOS = (
    "<|begin_of_thought|>\n\nAdd them.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nIt is \\boxed{4}.\n\n<|end_of_solution|>"
)
STRATOS_ANSWER = "<think>Add them.</think>\n<answer>It is \\boxed{4}.</answer>"
HUMAN = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: pen?\n\nAssistant: "
SHARED = user("hi") + assistant("hello") + user("pen?")

# shape, row as its source writes it, row as TRL's columns
CASES = [
    (
        "question-answer",
        {
            "question": " How many? ",
            "answer": "2*3=<<2*3=6>>6 each\n6*200=<<6*200=1200>>1200\n#### 1,200",
        },
        {
            "prompt": user("How many?"),
            "completion": assistant("<think>2*3=6 each\n6*200=1200</think>\n<answer>1200</answer>"),
            "solution": "1200",
        },
    ),
    (
        "question-answer",
        {"question": "5 - 3?", "answer": "2", "metadata": {"x": 1}},
        {"prompt": user("5 - 3?"), "completion": None, "solution": "2"},
    ),
    (
        "mawps",
        {"original_text": "Tables ?", "equation": "X=((22.0-14.0)/4.0)", "ans": 2.0},
        {
            "prompt": user("Tables ?"),
            "completion": assistant("<think>22 - 14 = 8\n8 / 4 = 2</think>\n<answer>2</answer>"),
            "solution": "2",
        },
    ),
    (
        "mawps",  # the equation does not give the answer
        {"original_text": "Tables ?", "equation": "X=(22.0-14.0)", "ans": "2.0"},
        {"prompt": user("Tables ?"), "completion": None, "solution": "2"},
    ),
    (
        "mawps",  # an equation to solve, not to work out
        {"original_text": "Age ?", "equation": "X-6=52", "ans": 58},
        {"prompt": user("Age ?"), "completion": None, "solution": "58"},
    ),
    (
        "svamp",
        {
            "Body": "A pack costs 76. There is 25 off",
            "Question": "How much?",
            "Equation": "( 76.0 - 25.0 )",
            "Answer": 51.0,
        },
        {
            "prompt": user("A pack costs 76. There is 25 off. How much?"),
            "completion": assistant("<think>76 - 25 = 51</think>\n<answer>51</answer>"),
            "solution": "51",
        },
    ),
    (
        "countdown",
        {
            "nums": [44, 19, 35],
            "target": 98,
            "prompt": user("… <think> "),
            "solution": "19 + 35 = 54 </think>\n<answer> 44 + (19 + 35) </answer>",
        },
        {
            "prompt": user(
                "Using the numbers [44, 19, 35], write an expression that equals 98. You may use "
                "+ - * / and brackets, and each number at most once."
            ),
            "completion": assistant("<think>19 + 35 = 54</think>\n<answer>44 + (19 + 35)</answer>"),
            "solution": "98",
            "nums": [44, 19, 35],
            "target": 98,
        },
    ),
    (
        "math",
        {"problem": "Half?", "solution": "so \\boxed{x}", "answer": "\\frac{1}{2}", "level": 5},
        {"prompt": user("Half?"), "solution": "\\boxed{\\frac{1}{2}}", "level": 5},
    ),
    (
        "numinamath",
        {
            "problem": "Half?",
            "solution": "first \\boxed{3}, then $\\boxed{\\frac{1}{\\sqrt{2}}}$.",
            "messages": [{"role": "user", "content": "Half?"}],
        },
        {
            "prompt": user("Half?"),
            "solution": "\\boxed{\\frac{1}{\\sqrt{2}}}",
            "reference": "first \\boxed{3}, then $\\boxed{\\frac{1}{\\sqrt{2}}}$.",
        },
    ),
    (
        "numinamath",  # the gold stands in the dialogue alone, spelt from/value
        {
            "problem": "n?",
            "solution": "see below",
            "messages": [
                {"from": "user", "value": "n?"},
                {"from": "gpt", "value": "\\boxed{1,024}"},
            ],
        },
        {"prompt": user("n?"), "solution": "1024", "reference": "see below"},
    ),
    (
        "instruct",
        {"instruction": "Spell it.", "input": "freind", "output": "friend"},
        {"prompt": user("Spell it.\n\nfreind"), "completion": assistant("friend")},
    ),
    (
        "instruct",
        {"instruction": "Count.", "input": "", "output": "1 2"},
        {"prompt": user("Count."), "completion": assistant("1 2")},
    ),
    (
        "preference",
        {"prompt": "Why?", "chosen": "As.", "rejected": "No."},
        {"prompt": user("Why?"), "chosen": assistant("As."), "rejected": assistant("No.")},
    ),
    (
        "preference",
        {"chosen": user("Why?") + assistant("As."), "rejected": user("Why?") + assistant("No.")},
        {"prompt": user("Why?"), "chosen": assistant("As."), "rejected": assistant("No.")},
    ),
    (
        "preference",
        {"chosen": HUMAN + "a b.", "rejected": HUMAN + "a c."},
        {"prompt": SHARED, "chosen": assistant("a b."), "rejected": assistant("a c.")},
    ),
    (
        "conversations",
        {
            "system": "Use <|begin_of_thought|> tags.",
            "conversations": [
                {"from": "user", "value": "2+2"},
                {"from": "assistant", "value": STRATOS},
            ],
        },
        {"messages": user("2+2") + assistant(STRATOS_ANSWER)},
    ),
    (
        "conversations",
        {
            "system": "Be kind.",
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        },
        {"messages": [{"role": "system", "content": "Be kind."}, *user("a"), *assistant("b")]},
    ),
    (
        "messages",
        {"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"messages": user("a") + assistant("b")},
    ),
    (
        "labelled-text",
        {"text": "one two three four five six", "label": 1},
        {
            "prompt": "Text: one two three four",
            "completion": " five six",
            "label": True,
            "text": "one two three four five six",
        },
    ),
    (
        "prompt-completion",
        {"prompt": "2+2=", "completion": "4", "note": "kept"},
        {"prompt": "2+2=", "completion": "4", "note": "kept"},
    ),
    (
        "prompt-solution",
        {"prompt": user("2+2"), "solution": "4.0"},
        {"prompt": user("2+2"), "solution": "4"},
    ),
    ("prompt", {"prompt": "Once"}, {"prompt": "Once"}),
]


@pytest.mark.parametrize(("name", "row", "mapped"), CASES)
def test_a_local_row_of_every_shape_is_recognised_and_mapped(tmp_path, name, row, mapped):
    assert shapes.recognise(row, where="here").name == name
    assert list(local(tmp_path, row).rows()) == [mapped]


def test_every_shape_has_a_case():
    by_name_alone = {"plain-preference"}
    assert {name for name, _, _ in CASES} | by_name_alone == set(shapes.NAMES)


def test_plain_pairs_stay_plain_where_the_shape_is_named(tmp_path):
    row = {"prompt": "Why?", "chosen": " As.", "rejected": " No.", "note": 1}
    assert list(local(tmp_path, row, shape="plain-preference").rows()) == [row]


def test_parquet_gives_the_same_rows_as_jsonl(tmp_path):
    rows = [row for name, row, _ in CASES if name == "preference" and "prompt" not in row][:1]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    parquet = Local(path=str(tmp_path / "rows.parquet")).rows()
    assert list(parquet) == list(local(tmp_path, *rows).rows())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (GSM8K, "question-answer"),
        (NuminaMathTIR, "numinamath"),
        (BespokeStratos, "conversations"),
        (UltraFeedback, "preference"),
        (HHRLHF, "preference"),
    ],
)
def test_a_named_source_reads_a_local_file_in_place_of_the_hub(tmp_path, source, name):
    for shape, row, mapped in CASES:
        if shape == name:
            path = local(tmp_path, row).path
            assert list(source(path=path).rows()) == [mapped]


def test_a_transcript_that_differs_earlier_has_the_earlier_prompt(tmp_path):
    row = {
        "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
        "rejected": "\n\nHuman: a\n\nAssistant: B\n\nHuman: C\n\nAssistant: D",
    }
    found = local(tmp_path, row).rows()[0]
    assert found["prompt"] == user("a")
    assert found["chosen"] == assistant("b") + user("c") + assistant("d")
    assert found["rejected"] == assistant("B") + user("C") + assistant("D")


def test_dialogues_that_part_at_a_users_turn_or_end_early_go_back_to_the_answer_before(tmp_path):
    head = user("a") + assistant("b")
    longer = {"chosen": head, "rejected": head + user("c") + assistant("d")}
    parted = {"chosen": head + user("c") + assistant("d"), "rejected": head + user("e")}
    for row in (longer, parted):
        found = local(tmp_path, row).rows()[0]
        assert found["prompt"] == user("a")
        assert found["chosen"] == row["chosen"][1:]
        assert found["rejected"] == row["rejected"][1:]


@pytest.mark.parametrize(
    ("answer", "uses"),
    [
        ("44 + (19 + 35) + 0", "0 is not given"),
        ("44 + 19", "not 98"),
        ("49 + 49", "49 is not given"),
    ],
)
def test_a_wrong_countdown_solution_is_no_completion(tmp_path, answer, uses):
    row = {"nums": [44, 19, 35], "target": 98, "solution": f"x</think><answer>{answer}</answer>"}
    assert local(tmp_path, row).rows()[0]["completion"] is None, uses
