"""One spelling for answers that differ only in notation: LaTeX wrappers, spacing, signs, brackets,
units.

Every expression here is linear in its input (bounded repetition, no nested quantifiers), for
answers may be hostile.
"""

import re

# Characters with a plain equivalent; invisible ones go.
_PLAIN = str.maketrans(
    {
        **dict(zip("０１２３４５６７８９", "0123456789", strict=True)),
        **dict(zip("．，：；（）［］＋＝％＄＃／＜＞", ".,:;()[]+=%$#/<>", strict=True)),
        **dict.fromkeys("−–—－‐‑", "-"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000\t\r", " "),
        **dict.fromkeys(
            "\x00\x1f\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff", ""
        ),
        "×": r" \times ",
        "·": r" \cdot ",
        "⋅": r" \cdot ",
        "÷": "/",
        "²": "^2",
        "³": "^3",
        "°": r"^\circ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "∪": r"\cup ",
        "∈": r"\in ",
        "√": r"\sqrt ",
        "’": "'",
    }
)
_SPACING = re.compile(
    r"(?<!\\)\\[!,;:> ]|~|\\q?quad(?![a-z])"
    r"|\\(?:displaystyle|textstyle|limits|phantom\{\})(?![a-z])"
    r"|\\(?:left|right|[bB]igg?[lr]?)(?![a-z])\.?"
)
_FRACTION = re.compile(r"\\[dtc]frac(?![a-z])")
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname\*?|emph|bold|bf|rm)"
    r"\s?\{([^{}]*)\}"
)
_DEGREES = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\degrees?(?![a-z])")
_SHORT_FRACTION = re.compile(r"\\frac\s?(?:(\d)|\{([^{}]*)\})\s?(?:(\d)|\{([^{}]*)\})")
_ROOT_IN_PARENTHESES = re.compile(r"\\?\bsqrt\s?\(([^()]*)\)")
_SIGNS = re.compile(r"(?:-\s?-\s?)+")
_SHORT_ROOT = re.compile(r"\\sqrt\s{0,2}(\d|[a-zA-Z](?![a-zA-Z]))")
_ONE_IN_BRACES = re.compile(r"([\^_])\s?\{\s?(\w)\s?\}")
_POWER_OF_FACTORIAL = re.compile(r"(?<![\w)])(\d{1,10}|[a-z])!\s?\^")
_SPACE = re.compile(r" (?!\d)|(?<!\d) ")
_IN_BRACES = re.compile(r"(\{) | (\})")
_WRAPS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))


def plain(text: str) -> str:
    """The text without invisible characters, with one spelling of signs, digits and spaces."""
    return text.translate(_PLAIN)


def unwrap(text: str) -> str:
    """The text without the white space, sentence ends, emphasis and math delimiters around it."""
    for _ in range(6):
        before = text
        text = text.strip(" \n")
        end = text.rstrip(".,;:? \n")
        text = text[: len(end) + 1] if end.endswith("\\") else end  # "\\," is a space, no comma
        if (
            text.endswith("!") and len(text) > 3 and text[-3:-1].isalpha()
        ):  # an exclamation, no factorial
            text = text[:-1]
        text = text.removeprefix(":").lstrip(" \n")
        for left, right in _WRAPS:
            inner = text[len(left) : len(text) - len(right)]
            if (
                len(text) > len(left) + len(right)
                and text.startswith(left)
                and text.endswith(right)
                and left not in inner
                and not inner.endswith("\\")
            ):
                text = inner
                break
        if text == before:
            break
    return text


def tidy(text: str) -> str:
    """LaTeX in one spelling, words kept apart: `\\dfrac56\\!` -> `\\frac{5}{6}`, `\\text{even}` ->
    `even`.
    """
    if text.isascii() and text.isdigit():  # most answers
        return text
    text = unwrap(plain(text))
    text = text.replace("{,}", ",").replace(r"\$", "$").replace(r"\%", "%")
    text = _SPACING.sub(lambda m: "" if m[0] == r"\!" or m[0][1:2].isalpha() else " ", text)
    text = _FRACTION.sub(r"\\frac", text)
    for _ in range(2):  # a wrapper in a wrapper
        text = _WRAPPER.sub(r" \1 ", text)
    text = _DEGREES.sub(" ", text)
    text = _SHORT_FRACTION.sub(_full_fraction, text)
    text = _SIGNS.sub("+", text)
    text = _ROOT_IN_PARENTHESES.sub(r"\\sqrt{\1}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    text = _ONE_IN_BRACES.sub(r"\1\2", text)
    text = _POWER_OF_FACTORIAL.sub(r"(\1!)^", text)
    return _IN_BRACES.sub(r"\1\2", " ".join(text.split()))


def _full_fraction(match: re.Match[str]) -> str:
    over, under = match[1] or match[2], match[3] or match[4]
    return rf"\frac{{{over or ''}}}{{{under or ''}}}"


def squeeze(text: str) -> str:
    """`tidy` without white space but that between digits: two answers with the same squeeze are
    the same.
    """
    return without_spaces(tidy(text))


def without_spaces(text: str) -> str:
    """Without the spaces that do not part digits: `1 2` is not 12."""
    return _SPACE.sub("", text)
