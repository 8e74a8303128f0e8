"""Limits on what is parsed: most hostile answers are refused here in microseconds.

Length, digits, nesting, the size of exponents and factorials, and operators that leave the work to
the reader. An answer beyond a limit is wrong; the killable worker deals with what passes.
"""

import re

MAX_LENGTH = 12_000
MAX_DIGITS = 1_000
MAX_NESTING = 60
MAX_EXPONENT = 10_000
MAX_FACTORIAL = 3_000

_RUN_OF_DIGITS = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_EXPONENT = re.compile(
    r"(?:\^|\*\*)\s?\{?\s?\(?\s?([-+]?)\s?(\d{1,1000})\s?(?:(?:\^|\*\*)\s?\{?\s?(\d{1,1000}))?"
)
_TOWER = re.compile(r"(?:\^|\*\*)[^\^+=,&]{1,40}(?:\^|\*\*)[^\^+=,&]{1,40}(?:\^|\*\*)")
_FACTORIAL = re.compile(r"(\d{1,1000})\s?\\?!(?!=)")
_NESTED_FACTORIAL = re.compile(r"[!\^][^=,]{0,40}[)\]}]\s?!(?!=)|\\binom\s?\{[^{}]{0,40}!")
_BINOMIAL = re.compile(r"\\[dt]?binom\s?\{\s?(\d{5,1000})")
_UNDONE = re.compile(r"\\(?:int|iint|oint|sum|prod|lim)(?![a-z])|\\operatorname\s?\{lcm\}")


def too_much(text: str) -> str | None:
    """Which limit the text breaks, in words; None if it may be parsed."""
    if len(text) > MAX_LENGTH:
        return "length"
    if _RUN_OF_DIGITS.search(text):
        return "digits"
    if _nesting(text) > MAX_NESTING:
        return "nesting"
    if _TOWER.search(text) or any(_large(m) for m in _EXPONENT.finditer(text)):
        return "exponent"
    if _NESTED_FACTORIAL.search(text) or _BINOMIAL.search(text):
        return "factorial"
    if any(int(m[1]) > MAX_FACTORIAL for m in _FACTORIAL.finditer(text)):
        return "factorial"
    return None


def undone(text: str) -> bool:
    """Whether the text leaves a sum, product, limit or integral to be worked out."""
    return _UNDONE.search(text) is not None


def _large(exponent: re.Match[str]) -> bool:
    first, second = exponent[2], exponent[3]
    if second is None:
        return int(first) > MAX_EXPONENT
    return len(first) * int(second) > 5 if int(first) > 1 else False


def _nesting(text: str) -> int:
    """The deepest nesting of brackets."""
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest
