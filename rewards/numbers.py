"""Plain numbers, read exactly and without sympy: integers, decimals, fractions, mixed numbers,
percent, currency, units.

Choices. Thousands separators are commas, spaces or `\\!`. A percentage p% reads as p and as p/100,
so a gold of 35 accepts `35.0\\%`, a gold of 0.07 accepts `7\\%`, and a gold of 7 refuses `0.07`.
"3 million" reads as 3 and as 3000000. Numbers agree when they are equal exactly; a decimal agrees
with a fraction it rounds (0.333333 with 1/3) where they differ by at most 5e-7 and by at most one
part in 10^5, so tiny numbers never collide.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 1000

_CURRENCY = r"(?:(?:US|CA|AU|HK|NZ|C|A)?[$€£¥₹₩₽]|USD|EUR|GBP|INR|RMB|Rs\.?|rupees)"
DIGITS = r"(?:\d{1,3}(?:,\s?\d{3})+(?:\.\d+)?|\d{1,3}(?:\s\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
# First words that make of a number something else than that many things.
_NOT_UNITS = (
    r"(?:or|and|to|times|plus|minus|out|of|pi|sqrt|over|is|are|if|mod|if|by|i|e|x|y|z|n|k|a|b|c)\b"
)
_UNIT_WORD = r"(?:[A-Za-z\u4e00-\u9fff'.]{1,20}(?:\^[23])?|[/-]|\^[23])"
_ATTACHED = (
    r"(?:[kcm]?m|[km]?g|lbs?|ft|oz|hrs?|mins?|secs?|mph|km/?h|ml|L|in|k?W|[ap]m|st|nd|rd|th"
    r"|元|个|美元|只|岁|天)"
)
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s?{_CURRENCY}?\s?(?P<sign2>[-+]?)\s?"
    r"(?:(?P<before>\d{0,20})\.(?P<once>\d{0,20})\\overline\{?(?P<again>\d{1,20})\}?"
    rf"|(?P<whole>\d+)?\s?\\frac\{{\s?(?P<over>-?\d+)\s?\}}\{{\s?(?P<under>\d+)\s?\}}"
    rf"|(?:(?P<whole2>\d+)[ -])?(?P<over2>{DIGITS})\s?/\s?(?P<under2>{DIGITS})"
    rf"|(?P<digits>{DIGITS})(?:[eE](?P<exp>[-+]?\d{{1,3}})|\s?(?:\\times|\\cdot|\*|x)\s?10\s?\^\s?\{{?(?P<exp2>-?\d{{1,3}})\}}?)?)"
    rf"(?:\s?(?P<percent>%|percent\b|per cent\b|pct\b|percentage\b)|\s?{_CURRENCY})?"
    rf"(?P<units>(?:{_ATTACHED}\b)?(?:\s(?!{_NOT_UNITS}){_UNIT_WORD}(?:\s?{_UNIT_WORD}){{0,7}})?)\.?"
)


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number as written. readings: the values it may stand for; exact: no decimal point was
    used.
    """

    readings: tuple[Fraction, ...]
    percent: bool
    exact: bool


def read(text: str) -> Number | None:
    """The number that the whole of a tidied text is, with currency and unit words around it; None
    if it is not one.
    """
    if len(text) > MAX_DIGITS:
        return None
    if text.isascii() and text.isdigit():  # most answers
        return Number(readings=(Fraction(int(text)),), percent=False, exact=True)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    value = _value(match)
    if value is None:
        return None
    if "-" in (match["sign"], match["sign2"]):
        value = -value
    percent = match["percent"] is not None
    first_word = (match["units"] or "").strip().split(" ")[0].lower()
    readings = [value]
    if percent:
        readings.append(value / 100)
    elif first_word in _SCALES:
        readings.append(value * _SCALES[first_word])
    exact = not any("." in (match[group] or "") for group in ("digits", "over2", "under2"))
    return Number(readings=tuple(readings), percent=percent, exact=exact)


def _value(match: re.Match[str]) -> Fraction | None:
    if match["again"]:
        once, again = match["once"], match["again"]
        period = Fraction(int(again), 10 ** len(once) * (10 ** len(again) - 1))
        return _decimal((match["before"] or "0") + "." + (once or "0")) + period
    if match["digits"]:
        exponent = int(match["exp"] or match["exp2"] or 0)
        return _decimal(match["digits"]) * Fraction(10) ** exponent
    over = _decimal(match["over"] or match["over2"])
    under = _decimal(match["under"] or match["under2"])
    whole = match["whole"] or match["whole2"]
    if under == 0 or (whole and over < 0):
        return None
    return Fraction(int(whole or 0)) + over / under


def _decimal(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", ""))


def agree(*, gold: Number, answer: Number) -> bool:
    """Whether the answer is the gold number, percent read as said above."""
    if gold.percent and answer.percent:
        return _close(gold, answer, gold.readings[0], answer.readings[0])
    return any(_close(gold, answer, g, a) for g in gold.readings for a in answer.readings)


def _close(gold: Number, answer: Number, g: Fraction, a: Fraction) -> bool:
    if g == a:
        return True
    if gold.exact and answer.exact:
        return False
    gap = abs(g - a)
    return gap <= Fraction(5, 10**7) and gap <= max(abs(g), abs(a)) / 10**5
