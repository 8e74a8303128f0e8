"""Countdown: does an expression use the numbers it was given, and come to the target?

Read by the safe parser of `equations`, worked out in fractions, so `8 / (3 - 8 / 3)` is 24.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from data.equations import EquationError, number, value_and_numbers

_SIGNS = {
    "×": "*",
    "·": "*",
    "÷": "/",
    "−": "-",
    "–": "-",
    "\\times": "*",
    "\\cdot": "*",
    "\\div": "/",
    "\\left": "",
    "\\right": "",
    "$": "",
    "[": "(",
    "]": ")",
    "{": "(",
    "}": ")",
}
_SIGN = re.compile("|".join(re.escape(sign) for sign in _SIGNS))
_ARITHMETIC = re.compile(r"[0-9.+\-*/()\s]+")  # Python's parser also takes 1_2, 1e2 and # comments


def solves(text: str, *, numbers: Sequence[int], target: int, every: bool = False) -> bool:
    """Whether the expression gives the target and uses each number at most once.

    The target may follow it after an equals sign, or stand before it: `4 * 6 = 24` and `24 = 4 * 6`
    say the same. every: all numbers must be used. False for what is no arithmetic at all.
    """
    left, equals, right = _SIGN.sub(lambda sign: _SIGNS[sign[0]], text.strip()).partition("=")
    first = equals and number(left) == target
    expression, other = (right, left) if first else (left, right)
    if (equals and number(other) != target) or not _ARITHMETIC.fullmatch(expression):
        return False
    try:
        value, used = value_and_numbers(expression)
    except EquationError:
        return False
    asked, given = Counter(used), Counter(Fraction(each) for each in numbers)
    return value == target and (asked == given if every else asked <= given)
