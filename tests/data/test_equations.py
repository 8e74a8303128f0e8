from fractions import Fraction

import pytest

from data.equations import EquationError, decimal, number, plain_number, work


@pytest.mark.parametrize(
    ("text", "value", "lines"),
    [
        ("12 + 7 * 3", 33, ("7 * 3 = 21", "12 + 21 = 33")),
        ("2 * 3 + 4 * 5", 26, ("2 * 3 = 6", "4 * 5 = 20", "6 + 20 = 26")),
        ("10 - 4 - 3", 3, ("10 - 4 = 6", "6 - 3 = 3")),
        ("X=((22.0-14.0)/4.0)", 2, ("22 - 14 = 8", "8 / 4 = 2")),
        ("( 76.0 - 25.0 )", 51, ("76 - 25 = 51",)),
        (
            "x=11.08+14.33+9.31",
            Fraction("34.72"),
            ("11.08 + 14.33 = 25.41", "25.41 + 9.31 = 34.72"),
        ),
        ("3 - (2 - 7)", 8, ("2 - 7 = -5", "3 - (-5) = 8")),
        ("-7 + 2", -5, ("-7 + 2 = -5",)),
    ],
)
def test_work_follows_precedence_and_writes_every_step(text, value, lines):
    worked = work(text)
    assert worked.value == value
    assert worked.lines == lines


@pytest.mark.parametrize(
    "text",
    [
        "1 / 3",
        "4 / (2 - 2)",
        "2 ** 9",
        "9 // 2",
        "abs(3)",
        "__import__('os').getcwd()",
        "x + 1",
        "X-6=52",
        "True + 1",
        "1 +",
        "",
        "1e999 + 1",
        "(" * 150 + "1" + ")" * 150,
        "1+" * 200 + "1",
        "3 < 4",
        "2 if 1 else 3",
    ],
)
def test_anything_but_finite_plain_arithmetic_is_refused(text):
    with pytest.raises(EquationError):
        work(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(2), "2"),
        (Fraction(0), "0"),
        (Fraction(-1, 4), "-0.25"),
        (Fraction(1, 40), "0.025"),
        (Fraction(1450), "1450"),
        (Fraction(-3, 1000), "-0.003"),
    ],
)
def test_decimal_is_exact(value, text):
    assert decimal(value) == text
    assert Fraction(text) == value


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("2.0", "2"),
        (2.0, "2"),
        ("1,450", "1450"),
        ("-6.0", "-6"),
        (0.6667, "0.6667"),
        (10.333333333333334, "10.333333333333334"),
        (" 70 ", "70"),
        ("5e-05", "0.00005"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("3/4", "3/4"),
        ("x", "x"),
    ],
)
def test_plain_number(text, plain):
    assert plain_number(text) == plain


def test_number_reads_nothing_else_as_a_number():
    for text in ("", "x", "1/2", "--3", "nan", "1e999", "0x1f", "3 4"):
        assert number(text) is None
