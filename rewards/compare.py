"""Gold and answer compared at once, in this process, where that is certain; `None` where it takes
symbols.

Text first (two spellings of one LaTeX), then plain numbers, then words and letters of choices,
then lists element by element, then the limits of `guard`, then closed forms and polynomials.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rewards import exact, guard, lists, numbers
from rewards.boxes import JOIN
from rewards.extract import gold_of, value_in
from rewards.latex import squeeze, tidy, without_spaces
from rewards.phrases import is_expression

Verdict = Literal["equal", "different", "unparseable"]

_MAX_TIDIED, _MAX_READ = 100_000, 1000  # characters
# What may be set before a value: `x =`, `f(x) =`, `\angle A =`, `x \in`.
_VARIABLE = re.compile(
    r"^(?:\\(?!infty|emptyset)[a-z]{1,10}\s?)?[A-Za-z]{0,8}(?:_\w|\s?\([A-Za-z]\))?\s?"
    r"(?:=|\\in(?![a-z])|\\approx(?![a-z]))\s?"
)
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_RANGE = re.compile(r"[<>]|\\(?:le|ge|lt|gt|leq|geq|ne|neq|in|cup)(?![a-z])|[\[\]]")
_CHOICE = re.compile(r"\(?([A-Z])\)?")
_CHOSEN = re.compile(r"\(?([A-Z])(?:\)|[.:]|\)?$)")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_WORDS = re.compile(r"[^\W\d_][\w' .,&-]*")
_ONLY_TEXT = re.compile(r"\s?\\(?:text|textbf|textit|mathrm|mbox)\w{0,6}\s?\{[^{}]*\}\.?\s?")
_TRAILING_TEXT = re.compile(
    r"\s?\\(?:text|mbox|mathrm|textrm)\s?\{[^{}]*\}\s?(?:\^\s?\{?\s?[23]\s?\}?)?\s?$"
)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """An answer read in every way that needs no symbols.

    whole: tidied. value: the formula in it, where it is a sentence. squeezed: the spellings that
    count as the same text (whole; without a leading `x =`; without units). variable: that `x=`.
    number: the plain number it is. result: the number a calculation ends in (3 + 5 = 8), or a
    sentence holds. words: its words in lower case, where it has nothing else.
    """

    whole: str
    value: str
    squeezed: tuple[str, ...]
    variable: str
    number: numbers.Number | None
    result: numbers.Number | None
    words: str | None


@dataclass(frozen=True, kw_only=True)
class Gold:
    """A gold solution's answer.

    choice: the letter of a multiple choice. prose: several bare words, which nothing here can
    judge. text: marked as text or one long word, so that only the same words are equal to it.
    """

    reading: Reading
    choice: str | None
    prose: bool
    text: bool


@lru_cache(maxsize=4096)
def read(answer: str) -> Reading:
    """Read an extracted answer."""
    whole = tidy(answer) if len(answer) <= _MAX_TIDIED else answer
    bare = _VARIABLE.sub("", whole, count=1)
    squeezed = [without_spaces(whole), without_spaces(bare)]
    value, number, result = whole, numbers.read(bare), None
    if len(answer) <= _MAX_READ and number is None:
        unitless = _TRAILING_TEXT.sub("", answer)
        squeezed += [squeeze(unitless), squeeze(_VARIABLE.sub("", unitless, count=1))]
        value = tidy(value_in(answer)) or whole
        left, equals, right = bare.rpartition("=")
        calculated = equals and not _LETTER.search(left)
        result = numbers.read(right.strip() if calculated else value)
    return Reading(
        whole=whole,
        value=value,
        squeezed=tuple(dict.fromkeys(filter(None, squeezed))),
        variable=without_spaces(whole[: len(whole) - len(bare)]),
        number=number,
        result=result,
        words=_words(whole),
    )


def _words(tidied: str) -> str | None:
    if len(tidied) > 200 or not _WORDS.fullmatch(tidied) or not _LETTERS.search(tidied):
        return None
    return " ".join(re.findall(r"\w+", tidied.lower()))


@lru_cache(maxsize=4096)
def read_gold(solution: str) -> Gold | None:
    """Read a gold solution; None where it holds no answer at all."""
    answer = gold_of(solution).replace(JOIN, ", ")
    if not answer.strip():
        return None
    reading = read(answer)
    choice = _CHOICE.fullmatch(without_spaces(reading.whole))
    named = _ONLY_TEXT.fullmatch(answer) is not None
    bare = reading.words is not None and not named and not is_expression(answer)
    several = bare and " " in (reading.words or "")
    return Gold(
        reading=reading,
        choice=choice[1] if choice else None,
        prose=several,
        text=named or (bare and not several and len(reading.words or "") >= 4),
    )


def fit(gold: Gold, answer: str) -> Reading:
    """The answer read as the gold asks: of several boxes all where the gold is a list, else the
    last one.
    """
    listed = "," in gold.reading.whole
    return read(answer.replace(JOIN, ", ") if listed else answer.rpartition(JOIN)[2])


def at_once(gold: Gold, theirs: Reading) -> Verdict | None:
    """The verdict that needs no symbols; None where only a parser can tell."""
    ours = gold.reading
    if theirs.whole and _same_text(ours, theirs):
        return "equal"
    if gold.prose:
        return "unparseable"
    if not theirs.whole:
        return "different"
    number = theirs.number if ours.variable else theirs.number or theirs.result
    if ours.number is not None and number is not None and _comparable(ours, theirs):
        return "equal" if numbers.agree(gold=ours.number, answer=number) else "different"
    if gold.choice is not None and (chosen := _CHOSEN.match(without_spaces(theirs.whole))):
        return "equal" if chosen[1] == gold.choice else "different"
    if gold.text:
        return "different"
    if ours.number is not None and theirs.words and not any(map(str.isdigit, theirs.words)):
        return "different"
    both = ours.whole, theirs.value
    return lists.compare(*both) or _limits(*both) or exact.compare(*both)


def _comparable(ours: Reading, theirs: Reading) -> bool:
    """Not two different variables: x=5 is not y=5."""
    return not (ours.variable and theirs.variable) or ours.variable == theirs.variable


def _same_text(ours: Reading, theirs: Reading) -> bool:
    if theirs.squeezed[:1] == ours.squeezed[:1]:
        return True
    if _comparable(ours, theirs) and set(theirs.squeezed) & set(ours.squeezed):
        return True
    return ours.words is not None and ours.words == theirs.words


def _limits(ours: str, theirs: str) -> Verdict | None:
    if guard.too_much(theirs):
        return "different"
    limit = guard.too_much(ours)
    if limit is not None:
        # A huge value is not the answer that passed the limits; a formula too long to read is not
        # judged.
        return "different" if limit in ("exponent", "factorial") else "unparseable"
    if guard.undone(theirs) and not guard.undone(ours):
        return "different"
    if _RANGE.search(ours) and "=" in theirs and not _RANGE.search(theirs):
        return "different"  # an assignment is no range; math-verify reads x=1, y=2 as one
    return None
