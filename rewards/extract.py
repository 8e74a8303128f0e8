"""The final answer in a completion, and the gold answer in a solution.

Order: what stands in `<answer>…</answer>` or `\\boxed{}`; then what is announced (`#### 18`,
`A: 18`, "the answer is 18", 答案是18); then, where the whole text is one expression, that; then
the last formula or number. Within a rank the last one given counts. Where a reasoning is closed
by `</think>`, only what follows it is read.

Departs from math-verify, which reads LaTeX unless told otherwise, takes the first number after the
word "answer", and joins distant boxes. Calculator annotations (`<<9*2=18>>18`) are read as their
result. All scans are linear; the lower ranks look at the last 50,000 characters only.
"""

import re

from rewards import numbers
from rewards.boxes import last_boxes, last_tag
from rewards.latex import plain, tidy, unwrap
from rewards.phrases import SENTENCE_END, has_digit, is_expression, last_value, reduce

TAIL = 50_000
_MARKS_TRIED = 8

_SPACES = re.compile(r"[ \t\u00a0]{2,}")
_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}=([^<>=\n]{0,40})>>(\s?\$?\s?-?[\d.,]{1,40})?")
_MARK = re.compile(
    r"^[ \t]{0,8}#{4}[ \t]?(?P<hash>[^\n]{1,400})"
    r"|(?:^|(?<=[\n.>*]))[ \t]{0,8}\*{0,3}(?:A|ANS)\*{0,3}[ \t]?[:：]\*{0,3}[ \t]?\n?"
    r"(?P<label>[^\n]{1,400})"
    r"|\banswers?\b\*{0,3}"
    r"(?:[^.\n:=：]{0,60}?(?:\bis\b|\bare\b|\bequals\b|\bbe\b)|[^.\n:=：]{0,30}?(?=[:=：]))"
    r"\*{0,3}[ \t]?[:=：]?\*{0,3}\s{0,3}(?P<phrase>[^\n]{1,400})"
    r"|答案(?:是|为|[:：])?[:：]?[ \t]?(?P<chinese>[^\n。]{1,400})",
    re.IGNORECASE | re.MULTILINE,
)
_LABEL = re.compile(
    r"[\s*]{0,4}(?:#{4}|(?:A|ANS)\*{0,3}\s?[:：])[\s*]{0,4}[-+$€£¥.\d\\]", re.IGNORECASE
)


def answer_of(completion: str) -> str:
    """The answer a completion gives, "" if none; not tidied."""
    text = _SPACES.sub(" ", plain(completion))
    _, closed, after = text.rpartition("</think>")
    return _explicit(after if closed else text) or _announced(after if closed else text) or ""


def gold_of(solution: str) -> str:
    """The answer of a gold solution: a bare value, a wrapped one, or a worked solution's; "" if
    there is none.
    """
    text = _SPACES.sub(" ", plain(solution)).strip()
    explicit = _explicit(text)
    if explicit is not None:
        return explicit
    text = unwrap(text)
    if numbers.read(tidy(text)) is not None:
        return text
    marked = _marked(_ANNOTATION.sub(_result, text[-TAIL:]))
    if marked or is_expression(text):
        return marked or text
    worked = "\n" in text or SENTENCE_END.search(text[:-1]) is not None
    return last_value(text[-TAIL:]) if worked else text


def _explicit(text: str) -> str | None:
    """What the last `<answer>` block or the last run of boxes holds, whichever comes later; None
    without either.
    """
    tag_end, inside = last_tag(text)
    box_end, boxed = last_boxes(text)
    if box_end < 0 and tag_end < 0:
        return None
    if box_end > tag_end:
        return boxed
    inner_end, inner = last_boxes(inside)
    if inner_end >= 0:
        return inner
    inside = inside.strip()
    if len(inside) <= 200 and "\n" not in inside:
        return inside
    end = inside[-TAIL:]
    return _marked(end) or (last_value(end) if has_digit(end) else "") or inside


def value_in(sentence: str) -> str:
    """The formula or number that a sentence given as an answer holds; the sentence itself if it is
    a formula.
    """
    short = plain(sentence)[:1000]
    if is_expression(sentence) and not _LABEL.match(short):  # "A: 18" has no word in it either
        return sentence
    return _marked(short) or reduce(short, heading=False)


def _announced(text: str) -> str:
    """The answer of a text without tags and boxes."""
    text = _ANNOTATION.sub(_result, text[-TAIL:])
    return _marked(text) or _whole(text) or last_value(text)


def _result(annotation: re.Match[str]) -> str:
    return annotation[2] or annotation[1]


def _marked(text: str) -> str:
    """What the last announcement that holds a number or formula announces, else the last one's
    words; "" without any.
    """
    marks = list(_MARK.finditer(text))[-_MARKS_TRIED:]
    words = ""
    for match in reversed(marks):
        kind = match.lastgroup or ""
        found = reduce(match[kind], heading=kind == "hash")
        if found and (has_digit(found) or "\\" in found or is_expression(found)):
            return found
        words = words or found
    return words


def _whole(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 5000 and "\n" not in text and is_expression(text) else ""
