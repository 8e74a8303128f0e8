"""Gold and answer compared at once, in this process, where that is certain; `None` where it takes symbols.

Text first (two spellings of one LaTeX), then exact numbers, then words and letters of choices, then the limits of `guard`.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rewards import guard, numbers
from rewards.extract import gold_of, is_expression, value_in
from rewards.latex import squeeze, tidy, without_spaces

Verdict = Literal["equal", "different", "unparseable"]

# What may be set before a value: `x =`, `f(x) =`, `\angle A =`, `x \in`.
_VARIABLE = re.compile(
    r"^(?:\\(?!infty|emptyset)[a-z]{1,10}\s?)?[A-Za-z]{0,8}(?:_\w|\s?\([A-Za-z]\))?\s?"
    r"(?:=|\\in(?![a-z])|\\approx(?![a-z]))\s?"
)
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|lt|gt|leq|geq|ne|neq|in|cup)(?![a-z])|[\[\]]")
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

    squeezed: the spellings that count as the same text (whole; without units; without a leading `x =`), no white space.
    variable: that `x=`, if there is one. number: its plain number. result: the number a calculation ends in (3 + 5 = 8). words: its words in lower case, where it is words. latex: what a parser is given.
    spoken: the number of a sentence; it counts for an answer, not for a gold.
    """

    squeezed: tuple[str, ...]
    variable: str
    number: numbers.Number | None
    result: numbers.Number | None
    words: str | None
    latex: str
    spoken: numbers.Number | None = None


@dataclass(frozen=True, kw_only=True)
class Gold:
    """A gold solution's answer.

    choice: the letter of a multiple choice. prose: several bare words, which nothing here can judge. text: marked as text
    or one long word, so that only the same words are equal to it.
    """

    reading: Reading
    choice: str | None
    prose: bool
    text: bool


@lru_cache(maxsize=4096)
def read(answer: str) -> Reading:
    """Read an extracted answer."""
    whole = tidy(answer) if len(answer) <= 100_000 else answer
    bare = _VARIABLE.sub("", whole, count=1)
    unitless = _TRAILING_TEXT.sub("", answer)
    squeezed = [without_spaces(whole), without_spaces(bare)]
    if unitless.strip() and unitless != answer and len(answer) <= 1000:
        squeezed += [squeeze(unitless), squeeze(_VARIABLE.sub("", unitless, count=1))]
    number = numbers.read(bare)
    value = tidy(value_in(answer)) if number is None and len(answer) <= 1000 else whole
    left, equals, right = bare.rpartition("=")
    counted = equals and len(left) <= 1000 and not _LETTER.search(left)
    return Reading(
        squeezed=tuple(dict.fromkeys(filter(None, squeezed))),
        variable=without_spaces(whole[: len(whole) - len(bare)]),
        number=number,
        result=numbers.read(right.strip()) if counted else None,
        words=_words(whole),
        latex=whole if is_expression(whole) else value or whole,
        spoken=numbers.read(value) if number is None else None,
    )


def _words(tidied: str) -> str | None:
    if len(tidied) > 200 or not _WORDS.fullmatch(tidied) or not _LETTERS.search(tidied):
        return None
    return " ".join(re.findall(r"\w+", tidied.lower()))


@lru_cache(maxsize=4096)
def read_gold(solution: str) -> Gold | None:
    """Read a gold solution; None where it holds no answer at all."""
    answer = gold_of(solution)
    if not answer.strip():
        return None
    reading = read(answer)
    choice = _CHOICE.fullmatch(tidy(answer).replace(" ", ""))
    named = _ONLY_TEXT.fullmatch(answer) is not None
    bare = reading.words is not None and not named and not is_expression(answer)
    several = bare and " " in (reading.words or "")
    return Gold(
        reading=reading,
        choice=choice[1] if choice else None,
        prose=several,
        text=named or (bare and not several and len(reading.words or "") >= 4),
    )


def at_once(gold: Gold, answer: str) -> Verdict | None:
    """The verdict that needs no symbols; None where only a parser can tell."""
    if not answer.strip():
        return "unparseable" if gold.prose else "different"
    theirs, ours = read(answer), gold.reading
    if theirs.squeezed[:1] == ours.squeezed[:1]:
        return "equal"
    comparable = not (ours.variable and theirs.variable) or ours.variable == theirs.variable
    if comparable and set(theirs.squeezed) & set(ours.squeezed):
        return "equal"
    if ours.words is not None and ours.words == theirs.words:
        return "equal"
    if gold.prose:
        return "unparseable"
    number = theirs.number if ours.variable else theirs.number or theirs.result or theirs.spoken
    if ours.number is not None and number is not None and comparable:
        return "equal" if numbers.agree(gold=ours.number, answer=number) else "different"
    if gold.choice is not None and (chosen := _CHOSEN.match(tidy(answer).replace(" ", ""))):
        return "equal" if chosen[1] == gold.choice else "different"
    return "different" if gold.text else _limits(ours, theirs)


def _limits(ours: Reading, theirs: Reading) -> Verdict | None:
    if guard.too_much(theirs.latex):
        return "different"
    limit = guard.too_much(ours.latex)
    if limit is not None:
        # A huge value is not the answer that passed the limits; a formula too long to read is not judged.
        return "different" if limit in ("exponent", "factorial") else "unparseable"
    if guard.undone(theirs.latex) and not guard.undone(ours.latex):
        return "different"
    if (
        _INEQUALITY.search(ours.latex)
        and "=" in theirs.latex
        and not _INEQUALITY.search(theirs.latex)
    ):
        return "different"  # an assignment is no range; math-verify reads x=1, y=2 as one
    return None
