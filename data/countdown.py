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


def solves(text: str, *, numbers: Sequence[int], target: int, every: bool = False) -> bool:
    """Whether the expression gives the target and uses each number at most once.

    `24` may follow it after an equals sign. every: all numbers must be used. False for what is no
    arithmetic at all.
    """
    left, equals, right = _SIGN.sub(lambda sign: _SIGNS[sign[0]], text.strip()).partition("=")
    if equals and number(right) != target:
        return False
    try:
        value, used = value_and_numbers(left)
    except EquationError:
        return False
    asked, given = Counter(used), Counter(Fraction(each) for each in numbers)
    return value == target and (asked == given if every else asked <= given)
