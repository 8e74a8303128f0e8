"""Are evaluation prompts among the training prompts? Word n-grams, as of GPT-3 (2005.14165, C).

A prompt is matched where the whole of it is a training prompt, or where it shares n consecutive
words with one; case, punctuation and white space aside, numbers kept. A prompt of fewer than n
words is compared whole alone, and whole prompts with their signs: `12 + 7` is not `12 * 7`.

Departure: what is common to more than COMMON different prompts is a template and no match. GPT-3
counts the n-gram; here its numbers are left open for the count, as a template differs in just
these. Of Chinese, Japanese and Korean a character is a word, as in the repetition reward.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.prompts import R1_ZERO
from data.rows import Row
from rewards.scripts import CJK

WORDS = 13
COMMON = 10

_NUMBER = r"\d+(?:[.,]\d+)*"
_CHARACTER = CJK.pattern.removesuffix("+")
_LETTERS = rf"{_NUMBER}|{_CHARACTER}|(?:(?!{_CHARACTER})[^\W\d_])+"
_WORD = re.compile(_LETTERS)
_TOKEN = re.compile(rf"{_LETTERS}|[^\w\s.,;:!?'\"’“”]")
_BEFORE, _AFTER = R1_ZERO.split("{question}")

Gram = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """Places of the two prompts, and the words that they share."""

    prompt: int
    training: int
    words: str


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """n: words of an n-gram. prompts: evaluation prompts looked at; training: training prompts.
    matches: one for each evaluation prompt found in training, in their order.
    """

    n: int
    prompts: int
    training: int
    matches: tuple[Match, ...]

    @property
    def matched(self) -> int:
        return len(self.matches)

    @property
    def share(self) -> float:
        return self.matched / self.prompts if self.prompts else 0.0


def overlap(train_prompts: Iterable[str], eval_prompts: Sequence[str], n: int = WORDS) -> Overlap:
    """Which evaluation prompts stand in the training prompts. Memory goes by the evaluation's.

    Raises ValueError for an n below 1.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    wholes: dict[Gram, list[int]] = {}
    grams: dict[Gram, list[int]] = {}
    common: Counter[Gram] = Counter()
    counted: set[Gram] = set()  # prompts that are in `common`; each distinct one once
    for place, prompt in enumerate(eval_prompts):
        tokens = tuple(_TOKEN.findall(_plain(prompt)))
        wholes.setdefault(tokens, []).append(place)
        found = set(_grams(prompt, n))
        for gram in found:
            grams.setdefault(gram, []).append(place)
        if tokens not in counted:
            counted.add(tokens)
            common.update({_open(gram) for gram in found})
    whole: dict[int, Match] = {}
    shared: dict[int, dict[Gram, int]] = {}
    training = 0
    for place, prompt in enumerate(train_prompts):
        training += 1
        tokens = tuple(_TOKEN.findall(_plain(prompt)))
        for each in wholes.get(tokens, ()):
            whole.setdefault(each, Match(prompt=each, training=place, words=" ".join(tokens)))
        opened = {}
        for gram in set(_grams(prompt, n)):
            opened[_open(gram)] = None
            for each in grams.get(gram, ()):
                shared.setdefault(each, {}).setdefault(gram, place)
        known = [gram for gram in opened if gram in common]
        if known and tokens not in counted:
            counted.add(tokens)
            common.update(known)
    matches = dict(whole)
    for each, hits in shared.items():
        own = [(place, gram) for gram, place in hits.items() if common[_open(gram)] <= COMMON]
        if own and each not in matches:
            place, gram = min(own)
            matches[each] = Match(prompt=each, training=place, words=" ".join(gram))
    ordered = tuple(matches[each] for each in sorted(matches) if matches[each].words)
    return Overlap(n=n, prompts=len(eval_prompts), training=training, matches=ordered)


def prompt_texts(rows: Iterable[Mapping[str, Any] | Row]) -> Iterator[str]:
    """What is asked in each row: the user's turns, or the plain prompt without R1-Zero's frame."""
    for row in rows:
        asked = row.get("prompt")
        if isinstance(asked, str):
            yield asked.removeprefix(_BEFORE).removesuffix(_AFTER)
            continue
        turns = asked if asked is not None else row.get("messages") or ()
        yield "\n".join(each["content"] for each in turns if each["role"] == "user")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def _grams(prompt: str, n: int) -> Iterator[Gram]:
    words = _WORD.findall(_plain(prompt))
    return (tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def _open(gram: Gram) -> Gram:
    return tuple("#" if word[0].isdigit() else word for word in gram)
