"""Arithmetic as text: read it safely, work it out exactly, write down every step.

Nothing is evaluated as code: Python's parser gives a tree, and only + - * /, signs, brackets and
numbers are walked. Values are fractions, so `11.08 + 14.33` is exact and `1 / 3` is known to have
no decimal form. The one writer of worked solutions, for generated problems and for word problems
that come with an equation.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 300  # keeps Python's parser far from its recursion limit

_SYMBOLS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_NUMBER = re.compile(r"[-+]?(\d[\d,]*\.?\d*|\.\d+)([eE][-+]?\d{1,2})?")


class EquationError(ValueError):
    """Text that is not plain arithmetic, or whose steps have no finite decimal form."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A worked-out expression: its value, every value on the way, and a line such as `7 * 3 = 21`
    per operation.
    """

    value: Fraction
    values: tuple[Fraction, ...]
    lines: tuple[str, ...]


def number(text: object) -> Fraction | None:
    """The number that a text spells (`"2.0"`, `"1,450"`, `"-3e2"`), None where it spells none."""
    spelled = str(text).strip()
    if not _NUMBER.fullmatch(spelled) or len(spelled) > MAX_CHARACTERS:
        return None
    return Fraction(spelled.replace(",", ""))


def decimal(value: Fraction) -> str:
    """The exact decimal form, `2` or `-0.25`. Raises EquationError where there is none (1/3)."""
    rest, places = value.denominator, 0
    while rest % 2 == 0 or rest % 5 == 0:
        rest //= 10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5
        places += 1
    if rest != 1:
        raise EquationError(f"{value} has no finite decimal form")
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def plain_number(text: object) -> str:
    """A number written plainly (`2.0` -> `2`, `1,450` -> `1450`); any other text stripped,
    otherwise as it is. Raises EquationError for NaN, such as pandas' missing value, for infinity,
    and for what is neither text nor a number: a list's text is no answer.
    """
    if isinstance(text, float) and not math.isfinite(text):
        raise EquationError(f"{text} stands for no number; write the answer, or leave the row out")
    if isinstance(text, bool | bytes | list | tuple | dict):
        raise EquationError(f"an answer is text or a number, and here is {text!r}")
    value = number(text)
    return str(text).strip() if value is None else decimal(value)


def work(expression: str) -> Work:
    """Works out `12 + 7 * 3`, also as an equation for one unknown, `X=(12.0+7.0*3.0)`.

    Raises EquationError for anything else: names, powers, calls, division by zero, unending
    decimals.
    """
    values: list[Fraction] = []
    lines: list[str] = []

    def note(symbol: str, one: Fraction, other: Fraction, result: Fraction) -> None:
        second = f"({decimal(other)})" if other < 0 else decimal(other)
        lines.append(f"{decimal(one)} {symbol} {second} = {decimal(result)}")
        values.append(result)

    tree = _tree(re.sub(r"^\s*[A-Za-z]\w*\s*=", "", expression).strip())
    value = _walk(tree, note)
    decimal(value)
    return Work(value=value, values=tuple(values), lines=tuple(lines))


def value_and_numbers(expression: str) -> tuple[Fraction, list[Fraction]]:
    """What `(8 / 3) * 6` is worth, exactly, and the numbers written in it, from left to right.

    Raises EquationError for what is not arithmetic and for division by zero.
    """
    tree = _tree(expression.strip())
    value = _walk(tree, lambda *_: None)
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    constants.sort(key=lambda node: (node.lineno, node.col_offset))
    return value, [Fraction(str(node.value)) for node in constants]


def _tree(text: str) -> ast.expr:
    if len(text) > MAX_CHARACTERS:
        raise EquationError(f"longer than {MAX_CHARACTERS} characters")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise EquationError(f"not arithmetic: {text!r}") from error


def _walk(node: ast.expr, note: Callable[[str, Fraction, Fraction, Fraction], None]) -> Fraction:
    """The value of a tree; `note` hears of every operation with what goes in and comes out."""
    match node:
        case ast.Constant(value=int() | float() as constant):
            value = number(constant)
            if value is None:  # inf, or a bool, which is an int to Python
                raise EquationError(f"not a plain number: {constant!r}")
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_walk(operand, note)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _walk(operand, note)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SYMBOLS:
            symbol, apply = _SYMBOLS[type(op)]
            one, other = _walk(left, note), _walk(right, note)
            if symbol == "/" and other == 0:
                raise EquationError("division by zero")
            value = apply(one, other)
            note(symbol, one, other, value)
            return value
    raise EquationError(f"only + - * / and numbers are read, not {type(node).__name__}")
