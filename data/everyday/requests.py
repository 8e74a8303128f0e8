"""The requests behind `Everyday` and their answers, read from the lists beside this file.

An answer is a pair (thought, text). A request's good answers are those it should get; its bad ones
are what harmlessness trains against: compliance where it should be declined, else a refusal.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from data.prompts import worked
from data.split import side

Answer = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Request:
    """text: what the user writes. kind: whether to answer or to decline. family, about: what it is
    like and what it asks for; requests about one thing fall on one side of the split.
    interchangeable: another request of the family may have the same good answer.
    """

    text: str
    kind: Literal["general", "decline"]
    family: str
    about: str
    good: tuple[Answer, ...]
    bad: tuple[Answer, ...]
    interchangeable: bool = False


def ordinary(split: str) -> list[Request]:
    """Questions, lists, small rewrites, greetings, advice."""
    found = []
    refusals = _refusals([])
    for family, table in (_read("general.toml") | _read("talk.toml")).items():
        for entry in table["entries"]:
            about = f"{family}: {entry[0]}"
            if side(about) != split:
                continue
            slots = dict(zip(table["slots"], entry, strict=True))
            thought = table["thought"].format(**slots)
            found += [
                Request(
                    text=text.format(**slots),
                    kind="general",
                    family=family,
                    about=about,
                    good=tuple((thought, answer.format(**slots)) for answer in table["answers"]),
                    bad=refusals,
                    interchangeable=table.get("interchangeable", False),
                )
                for text in table["requests"]
            ]
    return found


def declined(split: str) -> list[Request]:
    """Requests to decline; complying is the bad answer, without any real instruction."""
    return [
        Request(
            text=text,
            kind="decline",
            family=topic,
            about=about,
            good=_refusals(table["offers"], who),
            bad=_given(table["comply"][place], who),
        )
        for topic, about, who, table in _topics(split)
        for place, text in enumerate(_filled(table["requests"], who))
    ]


def twins(split: str) -> list[Request]:
    """Harmless requests in much the same words; a refusal is the bad answer."""
    return [
        Request(
            text=text,
            kind="general",
            family=f"{topic}, harmless",
            about=f"{about} {place}",
            good=_given(table["good"][place], who),
            bad=_refusals(table["offers"], who),
        )
        for topic, about, who, table in _topics(split)
        for place, text in enumerate(_filled(table["twin"], who))
    ]


def phrases() -> list[str]:
    """Answers that help nobody."""
    return list(_read("unhelpful.toml")["phrases"])


def said(answer: Answer, thinking: bool) -> str:
    """The answer as a completion, its thought before it in tags where wanted."""
    thought, text = answer
    return worked(thought, text) if thinking else text


def _topics(split: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(topic, what it is about, the person, the topic's table) of this side."""
    table = _read("declines.toml")
    return [
        (topic, f"{topic}: {who}", who, texts)
        for (topic, texts), who in product(table["topics"].items(), table["people"])
        if side(f"{topic}: {who}") == split
    ]


def _filled(texts: list[str], who: str) -> list[str]:
    return [text.format(who=who) for text in texts]


def _refusals(offers: list[str], who: str = "") -> tuple[Answer, ...]:
    """With a reason or none, with an offer or none."""
    table = _read("declines.toml")
    ends = [*_filled(offers, who), *table["offers"], ""]
    parts = product(table["openings"], table["reasons"], ends)
    texts = dict.fromkeys(" ".join(filter(None, part)) for part in parts)
    return tuple((thought, text) for text in texts for thought in table["refusing"])


def _given(body: str, who: str) -> tuple[Answer, ...]:
    """An answer that does what was asked, however it begins."""
    table = _read("declines.toml")
    found = product(_filled(table["complying"], who), table["assents"])
    return tuple((thought, assent + body.format(who=who)) for thought, assent in found)


@cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
