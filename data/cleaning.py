"""A free answer in the common format: `<think>reasoning</think>`, `<answer>answer</answer>`.

So what a base model, an instruct model or an earlier RL stage wrote becomes cold-start data of one
make. The answer is the one that the accuracy reward reads; the reasoning is what stands in the
tags, or all of it where there are none, without any tags inside. Nothing is invented: a text
without an answer, or with nothing but an answer, is Unclean.
"""

from __future__ import annotations

import re

from data.prompts import worked
from rewards.boxes import JOIN
from rewards.extract import answer_of

# What models call such blocks; <think> and <answer> alone have a meaning here.
_TAG = re.compile(
    r"</?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|solution|answer)>", re.IGNORECASE
)
_ANSWER = re.compile(r"<answer>.*?(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_CLOSE = re.compile(r"</think>", re.IGNORECASE)
_OPEN = re.compile(r"<think>", re.IGNORECASE)


class Unclean(ValueError):
    """A text that cannot be written in the format; the message is the reason, in two words."""


def clean(text: str) -> str:
    """The text in the common format. Raises Unclean."""
    answer = _TAG.sub(" ", answer_of(text)).replace(JOIN, ", ").strip()
    if not answer:
        raise Unclean("no answer")
    reasoning = _reasoning(text)
    if not _says_more(reasoning, answer):
        raise Unclean("no reasoning")
    return worked(reasoning, answer)


def _reasoning(text: str) -> str:
    closes = list(_CLOSE.finditer(text))
    inside = text[: closes[-1].start()] if closes else text
    opened = _OPEN.search(inside)
    if opened:  # what comes before is talk to the user
        inside = inside[opened.end() :]
    elif not closes:
        without = _ANSWER.sub(" ", inside)
        inside = without if without.strip() else inside
    return _TAG.sub(" ", _ANSWER.sub(" ", inside) if opened else inside).strip()


def _says_more(reasoning: str, answer: str) -> bool:
    """Whether something stands there besides the answer and how it is announced."""
    rest = re.sub(r"\\f?boxed|####|\b(?:the|final|answer|is)\b", " ", reasoning.lower())
    return bool(re.sub(r"[\W_]+", "", rest.replace(answer.lower(), " ")))
