"""Pairs, tuples, intervals and lists of plain numbers, compared without a parser: reading one as
LaTeX takes 20 to 50 ms.

Order counts inside brackets, not in braces nor in a bare list (as math-verify has it). Square
brackets make intervals, so `[1,2)` is not `(1,2)`. What holds anything but plain numbers or
identical text is left to the parser.
"""

from typing import Literal

from rewards import numbers
from rewards.latex import without_spaces

_BRACKETS = {"(": ")]", "[": ")]"}
_MAX_LENGTH = 2000


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
    return (kind, elements) if len(elements) > 1 and depth == 0 and all(elements) else None


def compare(gold: str, answer: str) -> Literal["equal", "different"] | None:
    """The verdict on two tidied lists; None where it takes a parser."""
    ours, theirs = split(gold), split(answer)
    if ours is None or theirs is None:
        return None
    ordered = ours[0] != "{}"
    if ours[0] != theirs[0] and not (ordered and theirs[0] != "{}"):
        return None
    if not ordered:
        return _as_sets(ours[1], theirs[1])
    if ours[0] != theirs[0] or len(ours[1]) != len(theirs[1]):
        return "different"
    verdicts = [_element(g, a) for g, a in zip(ours[1], theirs[1], strict=True)]
    if all(verdicts):
        return "equal"
    return "different" if any(verdict is False for verdict in verdicts) else None


def _element(gold: str, answer: str) -> bool | None:
    if without_spaces(gold) == without_spaces(answer):
        return True
    g, a = numbers.read(gold), numbers.read(answer)
    return numbers.agree(gold=g, answer=a) if g is not None and a is not None else None


def _as_sets(golds: list[str], answers: list[str]) -> Literal["equal", "different"] | None:
    ours, theirs = ([numbers.read(text) for text in side] for side in (golds, answers))
    if None in ours or None in theirs:
        return None
    left, right = (sorted(n.readings[0] for n in side) for side in (ours, theirs))
    if left == right:
        return "equal"
    whole = all(n.exact and not n.percent for n in [*ours, *theirs])
    return "different" if whole and set(left) != set(right) else None
