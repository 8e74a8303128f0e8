"""The answers a text marks out: the last `<answer>…</answer>` and the last run of `\\boxed{…}`.

Departs from math-verify in what one run is: boxes apart by no more than a separator ("and", "or", a
comma); and in what an unclosed box is: no answer, for it may have been cut off in mid-number.
"""

import re
from collections import deque

# Between the boxes of one run: all of them answer a gold that is a list, the last one any other.
JOIN = "\x1f"

_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s?\{|\\[{}\\]|[{}]")
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)\s{1,3}([^\s{}$][^{}$\n]{0,100})")
SEPARATOR = re.compile(
    r"[\s,;$.&]|and|or|\\text\s?\{\s?(?:and|or)\s?\}|\\(?:quad|[,;! ])|\\\(|\\\)"
)


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last of the pattern's matches from left to right."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def last_tag(text: str) -> tuple[int, str]:
    """End and content of the last answer block; one that is not closed reaches to the end. (-1,
    "") without one.
    """
    opened, end, content = -1, -1, ""
    for match in _TAG.finditer(text):
        if not match[1]:
            opened = match.end()
        elif opened >= 0:
            end, content, opened = match.start(), text[opened : match.start()], -1
    if opened >= 0 and text[opened:].strip():
        return len(text), text[opened:]
    return end, content


def last_boxes(text: str) -> tuple[int, str]:
    """End and content of the last run of boxes that follow each other closely. (-1, "") without a
    closed box.
    """
    if "\\boxed" not in text and "\\fbox" not in text:
        return -1, ""
    boxes: list[tuple[int, int, str]] = []
    stack: list[tuple[bool, int, int]] = []
    for match in _BOX_TOKEN.finditer(text):
        token = match[0]
        if token in ("\\{", "\\}", "\\\\"):
            continue
        if token != "}":
            stack.append((len(token) > 1, match.start(), match.end()))
        elif stack:
            is_box, start, inner = stack.pop()
            if is_box and not any(outer for outer, _, _ in stack[-4:]):
                boxes.append((start, match.end(), text[inner : match.start()]))
    if not boxes:
        match = last_match(_OPEN_BOX, text)
        return (match.end(), match[1]) if match else (-1, "")
    run = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        gap = text[box[1] : run[0][0]]
        if SEPARATOR.sub("", gap):
            break
        if box[2] == run[0][2]:
            run[0] = (box[0], run[0][1], run[0][2])
        else:
            run.insert(0, box)
    return boxes[-1][1], JOIN.join(content.strip() for _, _, content in run)
