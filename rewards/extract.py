"""The final answer in a completion, and the gold answer in a solution.

Order: what stands in `<answer>…</answer>` or `\\boxed{}`; then what is announced (`#### 18`, `A: 18`, "the answer is 18",
答案是18); then, where the whole text is one expression, that; then the last formula or number. Within a rank the last one
given counts. Where a reasoning is closed by `</think>`, only what follows it is read.

Departs from math-verify, which reads LaTeX unless told otherwise, takes the first number after the word "answer", and joins
distant boxes. Calculator annotations (`<<9*2=18>>18`) are read as their result. All scans are linear; the lower ranks look
at the last 50,000 characters only.
"""

import re

from rewards import numbers
from rewards.latex import plain, tidy, unwrap

TAIL = 50_000
_MARKS_TRIED = 8
_GAP = 10  # characters between boxes that still list one answer

_SPACES = re.compile(r"[ \t\u00a0]{2,}")
_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}=([^<>=\n]{0,40})>>(\s?\$?\s?-?[\d.,]{1,40})?")
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s?\{|\\[{}]|[{}]")
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)\s{1,3}([^\s{}$][^{}$\n]{0,100})")
_SEPARATOR = re.compile(
    r"[\s,;$.&]|and|or|\\text\s?\{\s?(?:and|or)\s?\}|\\(?:quad|[,;! ])|\\\(|\\\)"
)
_MARK = re.compile(
    r"^[ \t]{0,8}#{4}[ \t]?(?P<hash>[^\n]{1,400})"
    r"|(?:^|(?<=[\n.>*]))[ \t]{0,8}\*{0,3}(?:A|ANS)\*{0,3}[ \t]?[:：]\*{0,3}[ \t]?\n?(?P<label>[^\n]{1,400})"
    r"|\banswers?\b\*{0,3}(?:[^.\n:=：]{0,60}?(?:\bis\b|\bare\b|\bequals\b|\bbe\b)|[^.\n:=：]{0,30}?(?=[:=：]))"
    r"\*{0,3}[ \t]?[:=：]?\*{0,3}\s{0,3}(?P<phrase>[^\n]{1,400})"
    r"|答案(?:是|为|[:：])?[:：]?[ \t]?(?P<chinese>[^\n。]{1,400})",
    re.IGNORECASE | re.MULTILINE,
)
_MATH = re.compile(
    r"\$\$([^$]{1,1000})\$\$|(?<![\\$])\$(?=[^\s$])([^$\n]{1,400}?)(?<=[^\s\\])\$(?!\d)"
    r"|\\\(((?:[^\\\n]|\\[^)\n]){1,400}?)\\\)|\\\[((?:[^\\]|\\[^\]]){1,1000}?)\\\]"
)
_SENTENCE_END = re.compile(r"[.!?。](?=\s|$)(?!\s?\d)")
_REASON = re.compile(r"\b(?:because|since|as there|given that)\b")
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-+]\s?)?(?:[$€£¥₹]\s?)?(?:(?<![\w.)\]}])-)?(?<![\w.])"
    r"(?:\d{1,30} \d{1,30}/\d{1,30}(?![\d/])|\d{1,30}/\d{1,30}(?![\d/])|\d{1,2}:\d\d(?!\d)"
    r"|\d{1,3}(?:,\d{3}){1,20}(?!\d)(?:\.\d{1,100})?|\d{1,400}(?:\.\d{1,400})?|\.\d{1,100})"
    r"(?:\s?(?:\\?%|percent\b))?"
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|[\u4e00-\u9fff]")
_FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "pi", "max", "min", "gcd", "lcm", "mod", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "frac", "in", "or", "and", "inf", "infty", "cup", "cap", "det"]
)
_TEXT_COMMAND = re.compile(r"\\(?:text\w*|math\w+|mbox|begin|end|operatorname)\s?\{[^{}]{0,200}\}")


def answer_of(completion: str) -> str:
    """The answer a completion gives, "" if none; not tidied."""
    text = _SPACES.sub(" ", plain(completion))
    _, closed, after = text.rpartition("</think>")
    return _explicit(after if closed else text) or _announced(after if closed else text) or ""


def gold_of(solution: str) -> str:
    """The answer of a gold solution: a bare value, a wrapped one, or a worked solution's; "" if there is none."""
    text = _SPACES.sub(" ", plain(solution)).strip()
    explicit = _explicit(text)
    if explicit is not None:
        return explicit
    text = unwrap(text)
    if is_expression(text) or numbers.read(tidy(text)) is not None:
        return text
    marked = _marked(_ANNOTATION.sub(_result, text[-TAIL:]))
    if marked:
        return marked
    worked = "\n" in text or _SENTENCE_END.search(text[:-1]) is not None
    return _last(text[-TAIL:]) if worked else text


def _explicit(text: str) -> str | None:
    """What the last `<answer>` block or the last run of boxes holds, whichever comes later; None without either."""
    tag_end, inside = _last_tag(text)
    box_end, boxed = _last_boxes(text)
    if box_end < 0 and tag_end < 0:
        return None
    if box_end > tag_end:
        return boxed
    inner_end, inner = _last_boxes(inside)
    if inner_end >= 0:
        return inner
    inside = inside.strip()
    if len(inside) <= 200 and "\n" not in inside:
        return inside
    end = inside[-TAIL:]
    return _marked(end) or (_last(end) if _has_digit(end) else "") or inside


def value_in(sentence: str) -> str:
    """The formula or number that a sentence given as an answer holds; the sentence itself if it is a formula."""
    short = plain(sentence)[:1000]
    return sentence if is_expression(sentence) else _marked(short) or _reduce(short, heading=False)


def _last_tag(text: str) -> tuple[int, str]:
    """End and content of the last answer block; one that is not closed reaches to the end. (-1, "") without one."""
    opened, end, content = -1, -1, ""
    for match in _TAG.finditer(text):
        if not match[1]:
            opened = match.end()
        elif opened >= 0:
            end, content, opened = match.start(), text[opened : match.start()], -1
    if opened >= 0 and text[opened:].strip():
        return len(text), text[opened:]
    return end, content


def _last_boxes(text: str) -> tuple[int, str]:
    """End and content of the last run of boxes that follow each other closely. (-1, "") without a closed box."""
    if "\\boxed" not in text and "\\fbox" not in text:
        return -1, ""
    boxes: list[tuple[int, int, str]] = []
    stack: list[tuple[bool, int, int]] = []
    for match in _BOX_TOKEN.finditer(text):
        token = match[0]
        if token in ("\\{", "\\}"):
            continue
        if token != "}":
            stack.append((len(token) > 1, match.start(), match.end()))
        elif stack:
            is_box, start, inner = stack.pop()
            if is_box and not any(outer for outer, _, _ in stack[-4:]):
                boxes.append((start, match.end(), text[inner : match.start()]))
    if not boxes:
        match = None
        for match in _OPEN_BOX.finditer(text):
            pass
        return (match.end(), match[1]) if match else (-1, "")
    run = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        gap = text[box[1] : run[0][0]]
        if len(gap) > _GAP or _SEPARATOR.sub("", gap):
            break
        if box[2] == run[0][2]:
            run[0] = (box[0], run[0][1], run[0][2])
        else:
            run.insert(0, box)
    return boxes[-1][1], ", ".join(content.strip() for _, _, content in run)


def _announced(text: str) -> str:
    """The answer of a text without tags and boxes."""
    text = _ANNOTATION.sub(_result, text[-TAIL:])
    return _marked(text) or _whole(text) or _last(text)


def _result(annotation: re.Match[str]) -> str:
    return annotation[2] or annotation[1]


def _marked(text: str) -> str:
    """What the last announcement that holds a number or formula announces, else the last one's words; "" without any."""
    marks = list(_MARK.finditer(text))[-_MARKS_TRIED:]
    words = ""
    for match in reversed(marks):
        kind = match.lastgroup or ""
        found = _reduce(match[kind], heading=kind == "hash")
        if found and (_has_digit(found) or "\\" in found or is_expression(found)):
            return found
        words = words or found
    return words


def _reduce(phrase: str, *, heading: bool) -> str:
    """The value in what follows an announcement: all of it if it is one, else its formula, else its number or word."""
    phrase = unwrap(_unclosed(phrase).strip("*`")).removeprefix("}").strip()
    if numbers.read(tidy(phrase)) is not None:
        return phrase
    spans = list(_MATH.finditer(phrase))
    if spans:
        return _join(phrase, spans)
    if is_expression(phrase):
        return phrase
    if heading:  # "#### Step 2" is a heading of Markdown's; "#### 18 = 9 * 2 eggs" is an answer
        return _number_in(phrase) if phrase[:1] in "-+$€£(.0123456789" else ""
    end = _SENTENCE_END.search(phrase) or _REASON.search(phrase)
    sentence = unwrap(phrase[: end.start()] if end else phrase)
    if sentence != phrase and (is_expression(sentence) or numbers.read(tidy(sentence)) is not None):
        return sentence
    return _number_in(sentence) or (sentence if len(sentence.split()) <= 1 else "")


def _unclosed(phrase: str) -> str:
    """Without the end of a formula that began before the phrase."""
    phrase = phrase.rstrip(" .*")
    for left, right in ((r"\[", r"\]"), (r"\(", r"\)"), ("$$", "$$")):
        if phrase.endswith(right) and left not in phrase[:-2]:
            phrase = phrase[:-2]
    return phrase[:-1] if phrase.endswith("$") and phrase.count("$") == 1 else phrase


def _join(phrase: str, spans: list[re.Match[str]]) -> str:
    """The first formula, with those that continue it as a list."""
    run = [spans[0]]
    for span in spans[1:]:
        if _SEPARATOR.sub("", phrase[run[-1].end() : span.start()]):
            break
        run.append(span)
    return ", ".join(next(filter(None, span.groups())) for span in run)


def _number_in(sentence: str) -> str:
    """The number a sentence is about: the one it begins with, else the first after its last "=", else its last one."""
    _, equals, right = sentence.rpartition("=")
    found = _NUMBER.search(right) if equals else _NUMBER.match(sentence)
    if found is None:
        every = list(_NUMBER.finditer(sentence))
        found = every[-1] if every else None
    return found[0].strip() if found else ""


def _whole(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 5000 and "\n" not in text and is_expression(text) else ""


def _last(text: str) -> str:
    """The last formula or number of a text; "" if it has neither."""
    number = None
    for number in _NUMBER.finditer(text):
        pass
    span = None
    for span in _MATH.finditer(text):
        pass
    if span and (number is None or span.end() >= number.end()):
        return next(filter(None, span.groups()))
    return number[0].strip() if number else ""


def is_expression(text: str) -> bool:
    """Whether a one-line text is a formula: signs, digits and symbols, with no words but names of functions."""
    if not text or "\n" in text:
        return False
    words = _WORD.findall(_TEXT_COMMAND.sub("", text[:5000]))
    return all(word.lower() in _FUNCTIONS for word in words) and any(
        c.isalnum() for c in text[:5000]
    )


def _has_digit(text: str) -> bool:
    return any(c.isdigit() for c in text)
