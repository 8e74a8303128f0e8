"""Is the answer in the question, and are the evaluation's questions among those trained on?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import data
from align import recipe as recipes
from align.preflight.subject import Subject, drawn
from align.terminal.findings import Findings
from data import contamination, hub
from data.equations import number
from rewards.boxes import last_boxes
from rewards.extract import answer_of, gold_of

LOOKED_AT = 128  # rows whose prompt is read for its answer
TRAINING = 20_000  # rows held against the evaluation, by lot
EVALUATED = 2_000
MOST = 0.5
FEW = 0.01
# What says that an answer follows.
_MARK = re.compile(
    r"<answer>|^\s*####|^\s*(?:A|ANS)\s*[:：]|\banswers?(?:\s+(?:is|are)\b\s*[:：]?|\s*[:=：])"
    r"|答案(?:是|为)?\s*[:：]?",
    re.IGNORECASE | re.MULTILINE,
)
# Nothing may follow it that makes it one of several.
_ENDED = re.compile(r"[^\w,]*(?:$|[A-Z\n<])|\s*[.!;)\]*$]+(?![\w.])")
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s]")


def check(subject: Subject, found: Findings, *, recipe: str) -> None:
    _golds(subject, found)
    _evaluations(subject, found, recipe)


def _golds(subject: Subject, found: Findings) -> None:
    """Rows whose gold answer can be read off the prompt. A countdown's target is told to everybody,
    and an expression that gives it is what is asked.
    """
    rows = [
        row for _, row in subject.drawn
        if isinstance(row.get("solution"), str) and row.get("prompt") is not None
        and (row.get("nums") is None or row.get("target") is None)
    ][:LOOKED_AT]  # fmt: skip
    if not rows:
        return
    prompts = ["\n".join(contamination.prompt_texts([row])) for row in rows]
    golds = [row["solution"] for row in rows]
    if len(set(golds)) == 1:  # nothing tells the answer from the task
        return
    pairs = list(zip(prompts, golds, strict=True))
    marked = sum(_marked(*pair) for pair in pairs) / len(pairs)
    if marked > MOST:
        _say(found.error, subject, marked, rows, "the prompt states it as the answer")
        return
    read = sum(same_answer(answer_of(text), gold) for text, gold in pairs) / len(pairs)
    if read > MOST:
        how = "it is what the prompt ends with, unless that is the task"
        _say(found.warning, subject, read, rows, how)
        return
    # Somewhere in the prompt, much more often than other rows' golds.
    own = sum(_holds(text, gold) for text, gold in zip(prompts, golds, strict=True))
    shifted = [*golds[1:], golds[0]]
    other = sum(_holds(text, gold) for text, gold in zip(prompts, shifted, strict=True))
    if (own - other) / len(rows) > MOST:
        share = own / len(rows)
        _say(found.warning, subject, share, rows, "other rows' answers do not stand in it")


def _say(level: Any, subject: Subject, share: float, rows: Sequence[Any], how: str) -> None:
    level(
        "leak",
        f"the gold answer (column 'solution') stands in the prompt in {share:.0%} of {len(rows)} "
        f"rows of {subject.config.data.name}: {how}. Copying it would be learnt",
        "take it out of the column 'prompt', unless it is to be found or chosen there",
    )


def _marked(text: str, gold: str) -> bool:
    """Whether the prompt gives its own answer, in a box or behind words that announce one."""
    wanted = (gold_of(gold) or gold).strip()
    if same_answer(last_boxes(text)[1], gold):
        return True
    for mark in _MARK.finditer(text):
        said = text[mark.end() :].lstrip(" \t\n*$(")
        if wanted and said.startswith(wanted) and _ENDED.match(said[len(wanted) :]):
            return True
    return False


def same_answer(answer: str, gold: str) -> bool:
    """Equal as text, or as a plain number."""
    wanted = gold_of(gold) or gold
    return bool(answer) and (
        answer.strip() == wanted.strip()
        or (number(answer) is not None and number(answer) == number(wanted))
    )


def _holds(text: str, gold: str) -> bool:
    """Whether the gold stands in the text as words of its own."""
    inside, words = _WORD.findall(text.lower()), _WORD.findall(gold.lower())
    places = range(len(inside) - len(words) + 1)
    return bool(words) and any(inside[at : at + len(words)] == words for at in places)


def _evaluations(subject: Subject, found: Findings, recipe: str) -> None:
    try:
        evaluations = recipes.load(recipe).evaluations
    except recipes.RecipeError:  # a stage that was started by hand
        return
    places = drawn(len(subject.rows), TRAINING)
    trained: list[Mapping[str, Any]] = [subject.rows[place] for place in places]
    for evaluation in evaluations:
        try:
            with hub.without_network():
                rows = evaluation.data.rows()
        except data.DataError as error:
            found.note("leak", f"{evaluation.name} was not compared with the data: {error}")
            continue
        asked = list(contamination.prompt_texts(rows[i] for i in drawn(len(rows), EVALUATED)))
        overlap = contamination.overlap(contamination.prompt_texts(trained), asked)
        if not overlap.matched:
            continue
        first = overlap.matches[0]
        said = (
            f"{overlap.matched:,} of {len(asked):,} problems of the evaluation {evaluation.name} "
            f"({evaluation.data.name}) stand in the training data {subject.config.data.name}, such "
            f"as {first.words[:80]!r}"
        )
        if overlap.share > MOST:
            found.error(
                "leak",
                f"{said}: it would measure memory",
                "train on other rows with --data, such as another split, or mend the recipe "
                f"{recipe}: give its evaluation {evaluation.name} rows that are held out, or take "
                "it out of evaluations to train all the same",
            )
        elif overlap.share > FEW:
            found.warning("leak", said, "drop them from one of the two")
        else:
            found.note("leak", said)
