"""Accuracy: how answers are given, what counts as equal, what is neutral, and the choices the
docstrings state.
"""

import logging

import pytest

import rewards
from rewards import core


def judge(completion: object, solution: object) -> float | None:
    return rewards.get("accuracy")([completion], solution=[solution])[0]


# How 18 is said; {v} is the value.
ENDINGS = [
    "<answer>{v}</answer>",
    "<answer>\n${v} dollars\n</answer>",
    "<think>\\boxed{{7}}</think><answer>{v}</answer>",
    "<answer>{v}",
    "<answer>A: ${v}</answer>",
    "<answer>**A: {v}**</answer>",
    "<answer>#### {v}</answer>",
    "So it is \\boxed{{{v}}}.",
    "\\[\\boxed{{{v}\\text{{ cm}}}}\\]",
    "\\boxed{{7}} at first. Then \\boxed{{{v}}}",
    "\\boxed {v}",
    "#### {v}",
    "####{v}",
    "#### ${v}",
    "#### {v} dollars",
    "#### 7\nNo.\n#### {v}",
    "A: {v}",
    "A: {v}.00",
    "A: ${v}.",
    "A: {v} eggs per day.",
    "A: {v} because 3 - 2 = 1.",
    "The answer is {v}.",
    "The answer is **{v}**.",
    "The answer is ${v} a week, as 9 is half of it.",
    "Final Answer: The final answer is ${v}$. I hope it is correct.",
    "The answer to the question (in dollars) is: {v}",
    "**Answer:** {v}",
    "### Final Answer\n\n**{v} eggs**",
    "Answer:\n{v}",
    "答案是{v}。",
    "答案：{v}",
    "Janet makes 9 * 2 = ${v} every day.",
    "Janet makes 9 * 2 = $<<9*2={v}>>{v}",
    "Janet makes 9 * 2 = <<9*2={v}>>",
    "So $x + 1 = {v}$ eggs.",
    "{v}",
    "${v}",
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_way_to_end(ending: str) -> None:
    body = "There are 16 eggs a day and 3 are eaten, so <<16-3=13>>13 are left at $5 each.\n"
    for gold in ("18", "$18$", "\\boxed{18}", "#### 18", "16 + 2 = <<16+2=18>>18\n#### 18"):
        assert judge(body + ending.format(v="18"), gold) == 1.0, gold
        assert judge(body + ending.format(v="19"), gold) == 0.0, gold
        assert judge(body + ending.format(v="-18"), gold) == 0.0, gold


@pytest.mark.parametrize(
    ("completion", "gold", "value"),
    [
        ("#### Step 2: add\nSo 7 and then 9.", "9", 1.0),  # a heading is no answer
        ("<think>My answer is \\boxed{42}</think> Some other text.", "42", 0.0),
        ("<think>It is \\boxed{42}</think> No: \\boxed{43}", "42", 0.0),
        ("<think>\\boxed{41}</think>So it is 42.", "42", 1.0),
        ("<answer>5</answer> or rather \\boxed{6}", "6", 1.0),
        ("x = \\boxed{2} or \\boxed{3}", "2, 3", 1.0),  # boxes side by side are a list
        ("x = \\boxed{2} or \\boxed{3}", "3", 1.0),
        ("x = \\boxed{2}, which is why \\boxed{3}", "2, 3", 0.0),
        ("\\boxed{1,2,3,4,5,6,7}", "7", 0.0),
        ("I do not know", "7", 0.0),
        ("\\boxed{}", "7", 0.0),
        ("", "7", 0.0),
        ("The total costs between $5 and $10", "10", 1.0),  # currency, no formula
        ("It is 10-5", "-5", 0.0),
        ("It is -5", "-5", 1.0),
        ("It is −5", "-5", 1.0),  # a typographic minus
        ("A: １８", "18", 1.0),
    ],
)
def test_which_answer_counts(completion: str, gold: str, value: float) -> None:
    assert judge(completion, gold) == value


EQUAL = [
    ("1800", "1,800"),
    ("1800", "1{,}800"),
    ("10,\\!000", "10000"),
    ("1000000", "1 000 000"),
    ("1000000", "1 million"),
    ("\\$18.90", "18.9"),
    ("18.90", "$18.90"),
    ("\\frac{63}{400}", "63/400"),
    ("\\frac{63}{400}", "\\frac{126}{800}"),
    ("\\frac{5}{6}", "\\frac56"),
    ("\\dfrac{3}{4}", "0.75"),
    ("3\\frac{1}{2}", "3.5"),
    ("3\\frac12", "3 1/2"),
    ("\\frac{1}{3}", "0.333333"),
    ("0.\\overline{3}", "1/3"),
    ("10\\sqrt{2}", "10\\sqrt 2"),
    ("\\sqrt{8}", "2\\sqrt2"),
    ("\\sqrt{1/n}", "\\frac{1}{\\sqrt{n}}"),
    ("8-i", "-i+8"),
    ("5", "x=5"),
    ("x=5", "5"),
    ("x \\in [1,2]", "[1,2]"),
    ("1 \\le x \\le 2", "[1,2]"),
    ("3x+4y+14=0", "6x+8y+28=0"),
    ("x^2+2x+1", "(x+1)^2"),
    ("(3, \\frac{\\pi}{2})", "\\left( 3, \\frac{\\pi}{2} \\right)"),
    ("1,2", "\\{1, 2\\}"),
    ("\\begin{pmatrix} 1/2 \\\\ 2 \\end{pmatrix}", "\\begin{bmatrix}0.5\\\\2\\end{bmatrix}"),
    ("\\text{(C)}", "C"),
    ("C", "(C) 18"),
    ("\\text{even}", "Even"),
    ("Evelyn", "\\text{Evelyn}"),
    ("June 20", "June 20"),
    ("10\\text{ cm}", "10"),
    ("10", "10\\text{ cm}^2"),
    ("90^\\circ", "90"),
    ("1001_2", "1001_{2}"),
    ("2:30", "2:30"),
    ("6!", "720"),
    ("24!^2", "24! \\times 24!"),
    # Percent: p% reads as p and as p/100.
    ("35", "35.0\\%"),
    ("35", "35%"),
    ("0.07", "7\\%"),
    ("7\\%", "0.07"),
]
DIFFERENT = [
    ("8-i", "8"),
    ("5", "50"),
    ("x=5", "y=5"),
    ("x=7", "7=7"),
    ("12", "1 2"),
    ("7", "0.07"),  # no percent sign, no percentage
    ("7\\%", "70\\%"),
    ("\\frac{1}{3}", "0.33"),
    ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}"),
    ("0.000001", "0.0000014"),
    ("\\frac{1}{2004!}", "\\frac{1}{2006!}"),
    ("3x-y+13=0", "3x+4y+14=0"),
    ("3x+4y+14=0", "0"),
    ("1 - \\frac{1}{\\mathrm{e}}", "1 + \\frac{1}{\\mathrm{e}}"),
    ("1 < x < 2", "x=1, y=2"),
    ("\\mathbb{N}", "\\infty \\in \\mathbb{N}"),
    ("|x|", "x"),
    ("\\sqrt{x^2}", "x"),
    ("4", "4\\sqrt(2)"),
    ("[1,2)", "(1,2]"),
    ("\\text{(C)}", "(D)"),
    ("\\text{even}", "odd"),
    ("Evelyn", "Angela"),
    ("6!", "6"),
    ("x", "\\sum_{k=1}^{1} x"),  # left to the reader to work out
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold: str, answer: str) -> None:
    assert judge(f"Thus \\boxed{{{answer}}}.", gold) == 1.0
    assert judge(f"<answer>{answer}</answer>", f"${gold}$") == 1.0


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different(gold: str, answer: str) -> None:
    assert judge(f"Thus \\boxed{{{answer}}}.", gold) == 0.0
    assert judge(f"<answer>{answer}</answer>", f"\\boxed{{{gold}}}") == 0.0


@pytest.mark.parametrize("gold", ["forty two", "no idea at all", "", "   ", "f(x"])
def test_a_gold_that_cannot_be_parsed_is_neutral_and_never_silent(
    gold: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = core.totals.get("accuracy", {}).get("unscorable", 0)
    with caplog.at_level(logging.WARNING, "rewards"):
        scores = rewards.get("accuracy").score(["\\boxed{42}", "\\boxed{43}"], solution=[gold] * 2)
    assert [(s.value, s.correct, s.outcome) for s in scores] == [(0.5, None, "unscorable")] * 2
    assert core.totals["accuracy"]["unscorable"] == before + 2
    assert [r.getMessage() for r in caplog.records] == [
        "reward accuracy: of 2 samples 2 unscorable"
    ]
    assert rewards.get("accuracy", unparseable=0.0)(["\\boxed{42}"], solution=[gold]) == [0.0]


def test_a_missing_solution_does_not_apply() -> None:
    assert judge("\\boxed{5}", None) is None


def test_numbers_as_solutions() -> None:
    assert [judge("A: 18", 18), judge("A: 18", 18.0), judge("A: 18", 19)] == [1.0, 1.0, 0.0]


def test_chat_messages_and_strings_alike() -> None:
    messages = [{"role": "assistant", "content": "#### 18"}]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "#### 18"}]}]
    turns = [
        {"role": "assistant", "content": "#### 17"},
        {"role": "tool", "content": "no"},
        {"role": "assistant", "content": "#### 18"},
    ]
    silent = [{"role": "assistant", "content": None}]
    values = rewards.get("accuracy")(
        [messages, parts, turns, silent, "#### 18"], solution=["18"] * 5
    )
    assert values == [1.0, 1.0, 1.0, 0.0, 1.0]
    with pytest.raises(TypeError, match="a completion must be a string or a list of messages"):
        rewards.get("format")([3])


def test_a_missing_or_short_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"needs the column 'solution'.*columns given: answer"):
        rewards.get("accuracy")(["#### 18"], answer=["18"])
    with pytest.raises(ValueError, match="1 entries for 2 completions"):
        rewards.get("accuracy")(["#### 18"] * 2, solution=["18"])


def test_same_inputs_same_scores() -> None:
    completions = [f"\\boxed{{x+{i % 7}}}" for i in range(40)]
    golds = [f"{i % 3}+x" for i in range(40)]
    reward = rewards.get("accuracy")
    first = reward.score(completions, solution=golds)
    assert reward.score(completions, solution=golds) == first
    assert reward.score(completions[::-1], solution=golds[::-1]) == first[::-1]
    assert [s.value for s in first] == [float(i % 7 == i % 3) for i in range(40)]
