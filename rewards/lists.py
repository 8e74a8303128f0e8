"""Pairs, tuples, intervals, lists and matrices compared element by element, without a parser:
reading one as LaTeX takes 10 to 50 ms.

Order counts inside brackets, not in braces nor in a bare list, unless the gold is a tuple (as
math-verify has it). Brackets tell intervals apart at finite ends: `[1,2)` is not `(1,2)`, while
`[1,2,3]` is `(1,2,3)`. The gold's form decides: `1 \\le x < 2` accepts `[1,2)`, and `[1,2)` refuses
an inequality. An element is settled by its text, as a plain number, as infinity, or by `exact`;
where that takes more, the whole is left to the parser.
"""

import re
from typing import Literal

from rewards import exact, numbers
from rewards.latex import without_spaces

Verdict = Literal["equal", "different"]

_BRACKETS = {"(": ")]", "[": ")]"}
_MAX_LENGTH = 2000
_LESS = r"\s?(<|\\leq?(?![a-z])|\\lt(?![a-z]))\s?"
_END = r"((?:[^<>=,a-z\\]|\\frac){1,40}?)"
_BETWEEN = re.compile(rf"{_END}{_LESS}([a-z]){_LESS}{_END}")
_INEQUALITY = re.compile(r"[^,=()\[\]]*(?:[<>]|\\(?:[lg]eq?|[lg]t)(?![a-z]))[^,=()\[\]]*")
_THOUSANDS = re.compile(r"\d,\s?\d{3}(?!\d)")
_INFINITY = re.compile(r"([-+]?)\s?\\infty")
_MATRIX = re.compile(r"\\begin\{([pb])matrix\}((?:[^\\]|\\(?!begin|end))*)\\end\{\1matrix\}")


def split(text: str) -> tuple[str, list[str]] | None:
    """The brackets ("()", "[)", …; "{}" also for a bare list) and the elements of a tidied list of
    two or more.
    """
    if "," not in text or len(text) > _MAX_LENGTH:
        return None
    text = text.strip()
    kind, inner = "{}", text
    if text.startswith("\\{") and text.endswith("\\}"):
        inner = text[2:-2]
    elif text[0] in _BRACKETS and text[-1] in _BRACKETS[text[0]]:
        kind, inner = text[0] + text[-1], text[1:-1]
    elements, depth, start = [], 0, 0
    for i, char in enumerate(inner):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0:  # (1,2),(3,4): the outer brackets are not a pair
                return None
        elif char == "," and depth == 0:
            elements.append(inner[start:i].strip())
            start = i + 1
    elements.append(inner[start:].strip())
    if depth != 0 or not all(elements) or len(elements) < 2:
        return None
    return None if kind in ("[)", "(]") and len(elements) > 2 else (kind, elements)


def compare(gold: str, answer: str) -> Verdict | None:
    """The verdict on two tidied answers of which one is a list; None where it takes a parser."""
    ours, theirs = split(gold), split(answer)
    if ours is None and theirs is None:
        return _as_matrices(gold, answer)
    if ours is None or theirs is None:
        return _one_list(gold, answer, ours, theirs)
    ordered = ours[0] != "{}"
    if ours[0] == "()" and theirs[0] == "{}" and len(ours[1]) == len(set(theirs[1])):
        return _in_order(ours[1], theirs[1]) if len(ours[1]) == len(theirs[1]) else None
    if ours[0] != theirs[0] and not (ordered and theirs[0] != "{}"):
        return None
    if not ordered:
        return _as_sets(ours[1], theirs[1])
    if len(ours[1]) != len(theirs[1]):
        return "different"
    apart = [end for end, a, b in zip(ours[1], ours[0], theirs[0], strict=False) if a != b]
    if len(ours[1]) == 2 and not all(_INFINITY.fullmatch(end) for end in apart):
        return "different" if _is_interval(ours[1]) else None
    return _in_order(ours[1], theirs[1])


def _is_interval(ends: list[str]) -> bool:
    """Whether the second of two ends is the greater, for certain; else they are a pair."""
    if ends[0] == "-\\infty" or ends[1] in ("\\infty", "+\\infty"):
        return True
    low, high = (numbers.read(end) for end in ends)
    return low is not None and high is not None and low.readings[0] < high.readings[0]


def _in_order(golds: list[str], answers: list[str]) -> Verdict | None:
    verdicts = [_element(g, a) for g, a in zip(golds, answers, strict=True)]
    if all(verdicts):
        return "equal"
    return "different" if any(verdict is False for verdict in verdicts) else None


def _element(gold: str, answer: str) -> bool | None:
    if without_spaces(gold) == without_spaces(answer):
        return True
    g, a = numbers.read(gold), numbers.read(answer)
    if g is not None and a is not None:
        return numbers.agree(gold=g, answer=a)
    ends = [_INFINITY.fullmatch(text) for text in (gold, answer)]
    if all(ends):
        return (ends[0][1] == "-") == (ends[1][1] == "-")  # type: ignore[index]
    if any(ends):
        return False if _readable(answer if ends[0] else gold) else None
    verdict = exact.compare(gold, answer)
    return None if verdict is None else verdict == "equal"


def _readable(text: str) -> bool:
    """Whether the text is one finite value, for certain."""
    return numbers.read(text) is not None or exact.value(text) is not None


def _as_sets(golds: list[str], answers: list[str]) -> Verdict | None:
    ours, theirs = ([numbers.read(text) for text in side] for side in (golds, answers))
    if None in ours or None in theirs:
        return _as_exact_sets(golds, answers)
    left, right = (sorted(n.readings[0] for n in side) for side in (ours, theirs))
    if left == right:
        return "equal"
    whole = all(n.exact and not n.percent for n in [*ours, *theirs])
    return "different" if whole and set(left) != set(right) else None


def _as_exact_sets(golds: list[str], answers: list[str]) -> Verdict | None:
    left, right = ([exact.value(text) for text in side] for side in (golds, answers))
    if None in left or None in right:
        return None
    ours, theirs = (sorted(value[:2] for value in side) for side in (left, right))  # type: ignore[index]
    if ours == theirs:
        return "equal"
    return "different" if set(ours) != set(theirs) else None


def _one_list(
    gold: str,
    answer: str,
    ours: tuple[str, list[str]] | None,
    theirs: tuple[str, list[str]] | None,
) -> Verdict | None:
    """Where one of the two is a list: several values are not one, an inequality is an interval."""
    kind, elements = ours or theirs or ("", [])
    if kind == "{}" and _THOUSANDS.search(gold if ours else answer):
        return None
    if not all(_INFINITY.fullmatch(text) or _readable(text) for text in elements):
        return None
    other = answer if ours else gold
    if _readable(other):
        several = any(_element(elements[0], element) is False for element in elements[1:])
        return "different" if several else None
    if ours:
        return "different" if kind != "{}" and _INEQUALITY.fullmatch(answer) else None
    match = _BETWEEN.fullmatch(gold)
    if match is None or kind == "{}" or len(elements) != 2:
        return None
    ends = [match[1].strip(), match[5].strip()]
    if not _is_interval(ends):
        return None
    left, right = ("[" if "e" in match[2] else "("), ("]" if "e" in match[4] else ")")
    if kind != left + right:
        return "different"
    return _in_order(ends, elements)


def _as_matrices(gold: str, answer: str) -> Verdict | None:
    sides = []
    for text in (gold, answer):
        match = _MATRIX.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            return None
        rows = match[2].strip().removesuffix("\\\\").split("\\\\")
        sides.append([[cell.strip() for cell in row.split("&")] for row in rows])
    golds, answers = ([cell for row in side for cell in row] for side in sides)
    if [len(row) for row in sides[0]] != [len(row) for row in sides[1]]:
        return "different" if all(_readable(cell) for cell in [*golds, *answers]) else None
    return _in_order(golds, answers)
