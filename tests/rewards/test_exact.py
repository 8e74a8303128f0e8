"""Formulas and lists judged without a parser: the verdicts are math-verify's, or there is none."""

import json
import time
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import compare, exact, guard, lists, symbolic
from rewards.field import number, power, times


def at_once(gold: str, answer: str) -> str | None:
    return lists.compare(gold, answer) or exact.compare(gold, answer)


EQUAL = [
    ("x^2+824x+169744", "(x+412)^2"),
    ("416\\sqrt{3}", "\\sqrt{519168}"),
    ("\\frac{1}{\\sqrt{2}-1}", "1+\\sqrt{2}"),
    ("\\sqrt{\\frac{3}{4}}", "\\frac{\\sqrt{3}}{2}"),
    ("(2+\\sqrt{3})(2-\\sqrt{3})", "1"),
    ("-2\\frac{1}{2}", "-\\frac{5}{2}"),
    ("\\frac{n(n+1)}{2}", "\\frac{n^2+n}{2}"),
    ("2\\pi r", "r \\cdot 2 \\pi"),
    ("x^{-1}", "\\frac{1}{x}"),
    ("-2^2", "-4"),
    ("75", "3\\sqrt{625}"),
    ("448-i", "-i+448"),
    ("X+1", "1+x"),
    ("y=2x+1", "1+2x"),
    ("2x+1", "y=1+2x"),
    ("(316, \\frac{\\pi}{2})", "(316, \\pi/2)"),
    ("[1, \\infty)", "[\\frac{2}{2}, +\\infty)"),
    ("2+\\sqrt{3}, 2-\\sqrt{3}", "\\{2-\\sqrt{3}, \\sqrt{3}+2\\}"),
    ("1 \\le x < 5", "[1,5)"),
    ("(10, \\sqrt{2})", "10, \\sqrt{2}"),
    ("(3, 1, \\pi)", "[3, 1, \\pi]"),
    ("[2\\sqrt{2}, \\infty)", "[\\sqrt{8}, \\infty]"),
    (
        "\\begin{pmatrix} 1 & -\\frac{\\sqrt{2}}{2} \\end{pmatrix}",
        "\\begin{bmatrix}1&-1/\\sqrt{2}\\end{bmatrix}",
    ),
]
DIFFERENT = [
    ("x^2+824x+169744", "x^2+x+412"),
    ("416\\sqrt{3}", "3\\sqrt{416}"),
    ("448-i", "448+i"),
    ("448-i", "448"),
    ("\\frac{x}{2}", "\\frac{2}{x}"),
    ("y=2x+1", "y=2x+3"),
    ("2^{61}-1", "0"),
    ("\\pi", "\\frac{22}{7}"),
    ("(316, \\frac{\\pi}{2})", "(316, \\pi)"),
    ("(1, \\frac{9}{2})", "[1, \\frac{9}{2}]"),
    ("[0, \\infty)", "[0, 5)"),
    ("[0, \\infty)", "(0, \\infty)"),
    ("(-\\infty, \\infty)", "(\\infty, -\\infty)"),
    ("1 \\le x < 5", "(1,5)"),
    ("[1,5)", "1 \\le x < 5"),  # the gold's form decides
    ("(5, 6)", "5"),
    ("(2, 10)", "10, 2"),
    ("(10, 2)", "2, 10"),
    ("(1, 2, 3)", "3, 2, 1"),
    ("\\begin{pmatrix} 1 & 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    ("2\\sqrt{3}", "(2, \\sqrt{3})"),
    (
        "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        "\\begin{pmatrix} 1 \\\\ \\sqrt{2} \\end{pmatrix}",
    ),
]
# Read in several ways, or in another way by math-verify.
LEFT = [
    ("3h", "3"),
    ("2ab", "2"),
    ("2b x", "2"),
    ("x", "2x-x"),
    ("12", "3(4)"),
    ("f(2)", "2f"),
    ("\\frac{x}{2}", "1/2x"),
    ("2\\frac{1}{2}\\pi", "\\pi"),
    ("3+4i", "(2+i)^2"),
    ("1+2i", "2 \\cdot i+1"),
    ("3\\sqrt{2}", "4.24"),
    ("\\sqrt{x^2}", "x"),
    ("\\sqrt{-4}", "2i"),
    ("1", "\\frac{1-x}{x-x}"),
    ("e^2", "x"),
    ("5", "[5, 5]"),
    ("x=5y", "y=5x"),
    ("(3, 2)", "[3, 2]"),
    ("[1, 2, 3)", "[1, 2, 3)"),
    ("2450\\pi", "2,450\\pi"),
    ("2^3^2", "64"),
    ("2 3", "6"),
    ("50\\%", "\\frac{1}{2}"),
    ("4!", "24"),
    ("x_1", "x"),
]


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [(*pair, "equal") for pair in EQUAL] + [(*pair, "different") for pair in DIFFERENT],
)
def test_the_verdict_is_math_verifys(gold: str, answer: str, verdict: str) -> None:
    assert at_once(gold, answer) == verdict
    assert symbolic.compare(gold, answer) == verdict


@pytest.mark.parametrize(("gold", "answer"), LEFT)
def test_the_rest_is_left_to_the_parser(gold: str, answer: str) -> None:
    assert at_once(gold, answer) is None


def test_words_are_no_number() -> None:
    gold = compare.read_gold("8")
    assert gold is not None
    assert compare.at_once(gold, compare.read("no solution")) == "different"
    assert symbolic.compare("8", "no solution") == "different"


INTEGERS = st.integers(0, 12).map(lambda n: (str(n), Fraction(n)))


def _combined(parts: st.SearchStrategy) -> st.SearchStrategy:
    """An expression of two others, with its value; None where it divides by zero."""
    return st.builds(_combine, st.sampled_from("+-*/^f"), parts, parts)


def _combine(
    sign: str, left: tuple[str, Fraction | None], right: tuple[str, Fraction | None]
) -> tuple[str, Fraction | None]:
    (a, x), (b, y) = left, right
    if x is None or y is None or (sign in "/f" and y == 0):
        return f"\\frac{{{a}}}{{0}}", None
    texts = {
        "f": f"\\frac{{{a}}}{{{b}}}",
        "^": f"({a})^3",
        "/": f"({a})/({b})",
        "*": f"({a})*({b})",
    }
    values = {"+": x + y, "-": x - y, "*": x * y, "^": x**3}
    return texts.get(sign, f"{a}{sign}({b})"), values[sign] if sign in values else x / y


@given(st.recursive(INTEGERS, _combined, max_leaves=8))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_arithmetic_is_exact(expression: tuple[str, Fraction | None]) -> None:
    text, value = expression
    found = exact.value(text)
    if value is None:
        assert found is None
    elif found is not None:  # not too long nor too deep
        over, under = number(value.numerator), number(value.denominator)
        assert found[:2] == times(over, power(under, -1))[:2]


ATOMS = st.sampled_from(["x", "y", "\\pi", "2", "3", "7", "\\sqrt{2}", "\\sqrt{12}", "x^2", "i"])
# Two spellings of one value, and a third that may be another's.
SPELLINGS = st.sampled_from(
    [
        ("{a}+{b}-{c}", "-{c}+{b}+{a}", "{c}+{b}-{a}"),
        ("({a}+{b})^2", "({a})^2+2*{a}*{b}+({b})^2", "({a})^2+({b})^2"),
        ("{a}*({b}-{c})", "{a}*{b}-{a}*{c}", "{a}*{b}-{c}"),
        ("\\frac{{{a}}}{{{b}}}", "({a})/({b})", "({b})/({a})"),
        ("\\frac{{{a}}}{{{b}}}+{c}", "\\frac{{{a}+{b}*{c}}}{{{b}}}", "\\frac{{{a}+{c}}}{{{b}}}"),
    ]
)


@given(ATOMS, ATOMS, ATOMS, SPELLINGS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_formulas_are_judged_as_by_math_verify(
    a: str, b: str, c: str, spellings: tuple[str, str, str]
) -> None:
    gold, same, other = (spelling.format(a=a, b=b, c=c) for spelling in spellings)
    for answer in (same, other):
        verdict = exact.compare(gold, answer)
        assert verdict in (None, symbolic.compare(gold, answer)), (gold, answer)
    if "i" not in gold.replace("\\pi", ""):
        assert exact.compare(gold, same) == "equal"


def test_recorded_answers_are_judged_as_by_math_verify(shared_data: Path) -> None:
    """The golds of all recorded cases against one another."""
    golds = set()
    for file in sorted((shared_data / "cases").glob("*.jsonl")):
        for line in file.read_text().rstrip("\n").split("\n"):
            gold = compare.read_gold(str(json.loads(line).get("gold")))
            if gold is not None and len(gold.reading.whole) < 100 and not gold.prose:
                golds.add(gold.reading.whole)
    judged = [pair for pair in product(sorted(golds), repeat=2) if at_once(*pair)]
    assert len(judged) > 400
    for gold, answer in judged[::10]:
        if guard.too_much(gold + answer) is None:
            assert at_once(gold, answer) == symbolic.compare(gold, answer), (gold, answer)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100,
        "(" * 90 + "x" + ")" * 90,
        "(" * 5000 + "x" + ")" * 5000,
        "x+" * 100_000 + "x",
        "2 x" * 50_000,
        "x^{1000}" * 25,
        "(x+1)^{20}" * 20,
        "((((x^{999}+1)^{20}+1)^{20}+1)^{20}+1)^{20}",
        "7" * 200,
        "\\sqrt{999999999989}" * 10,
        "\\frac{1}{" * 20,
        "9^{9^{9}}",
        "a" * 200,
        " " * 199 + "x",
        "x " * 100,
        "\\",
    ],
)
def test_nothing_hostile_takes_long(text: str) -> None:
    began = time.process_time()
    exact.compare("x+1", text)
    lists.compare("(1, x)", f"({text}, {text})")
    assert time.process_time() - began < 0.05
