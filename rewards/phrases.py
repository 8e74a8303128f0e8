"""What a phrase says: the formula or number in "the answer is $18 a day, as 9 is half of it".

All scans are linear (bounded repetition), for phrases may be hostile.
"""

import re

from rewards import numbers
from rewards.boxes import SEPARATOR, last_match
from rewards.latex import tidy, unwrap

_MATH = re.compile(
    r"\$\$([^$]{1,1000})\$\$|(?<![\\$])\$(?=[^\s$])([^$\n]{1,400}?)(?<=[^\s\\])\$(?!\d)"
    r"|\\\(((?:[^\\\n]|\\[^)\n]){1,400}?)\\\)|\\\[((?:[^\\]|\\[^\]]){1,1000}?)\\\]"
)
SENTENCE_END = re.compile(r"[.!?。](?=\s|$)(?!\s?\d)")
_REASON = re.compile(r"\b(?:because|since|as there|given that)\b")
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-+]\s?)?(?:[$€£¥₹]\s?)?(?:(?<![\w.)\]}])-)?(?<![\w.])"
    r"(?:\d{1,30} \d{1,30}/\d{1,30}(?![\d/])|\d{1,30}/\d{1,30}(?![\d/])|\d{1,2}:\d\d(?!\d)"
    r"|\d{1,3}(?:,\d{3}){1,20}(?!\d)(?:\.\d{1,100})?|\d{1,400}(?:\.\d{1,400})?|\.\d{1,100})"
    r"(?:\s?(?:\\?%|percent\b))?"
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|[\u4e00-\u9fff]")
_FUNCTION = re.compile(
    r"(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|log|ln|exp|sqrt|frac|pi|max|min|gcd|lcm|mod|det"
    r"|in|or|and|inf|infty|cup|cap",
    re.IGNORECASE,
)
_TEXT_COMMAND = re.compile(r"\\(?:text\w*|math\w+|mbox|begin|end|operatorname)\s?\{[^{}]{0,200}\}")


def reduce(phrase: str, *, heading: bool) -> str:
    """The value in what follows an announcement: all of it if it is one, else its formula, else
    its number or word.
    """
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
    end = SENTENCE_END.search(phrase) or _REASON.search(phrase)
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
        if SEPARATOR.sub("", phrase[run[-1].end() : span.start()]):
            break
        run.append(span)
    return ", ".join(next(filter(None, span.groups())) for span in run)


def _number_in(sentence: str) -> str:
    """The number a sentence is about: the one it begins with, else the first after its last "=",
    else its last one.
    """
    _, equals, right = sentence.rpartition("=")
    found = _NUMBER.search(right) if equals else _NUMBER.match(sentence)
    if found is None:
        every = list(_NUMBER.finditer(sentence))
        found = every[-1] if every else None
    return found[0].strip() if found else ""


def last_value(text: str) -> str:
    """The last formula or number of a text; "" if it has neither."""
    number = last_match(_NUMBER, text)
    span = last_match(_MATH, text)
    if span and (number is None or span.end() >= number.end()):
        return next(filter(None, span.groups()))
    return number[0].strip() if number else ""


def is_expression(text: str) -> bool:
    """Whether a one-line text is a formula: signs, digits and symbols, with no words but names of
    functions.
    """
    if not text or "\n" in text:
        return False
    words = _WORD.findall(_TEXT_COMMAND.sub("", text[:5000]))
    return all(_FUNCTION.fullmatch(word) for word in words) and any(
        c.isalnum() for c in text[:5000]
    )


def has_digit(text: str) -> bool:
    return any(c.isdigit() for c in text)
