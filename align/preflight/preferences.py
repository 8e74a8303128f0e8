"""Which answer is the better one, where the rows tell it twice: pairs with chosen and rejected
exchanged, labels turned round, rows that take one another back, answers that belong to other rows'
prompts.

Told by the rows' scores, their margins, their gold answers; else by numbers: an answer that works
with all the numbers of another row's prompt and not with its own's belongs there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from align.config import Dpo, Kto, RewardModel, Sft
from align.preflight.contents import spoken
from align.preflight.leaks import same_answer
from align.preflight.subject import Subject
from align.terminal.findings import Findings
from rewards.extract import answer_of

MOST = 0.5
SOME = 0.05
LEAST = 8  # rows that tell it, from which on it is no accident
COMPARED = 20_000  # rows held against one another
RARE = 20  # times that one label may be as common as the other
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SWAP = "exchange the columns 'chosen' and 'rejected'"
TURN = "turn the column 'label' round: true is for the answers that are wanted"
MOVED = "look how the columns were joined: one was moved against the other"


def check(subject: Subject, found: Findings) -> None:
    rows = [row for _, row in subject.drawn]
    if isinstance(subject.config, Dpo | RewardModel):
        _scores(rows, found)
        _pairs(rows, found)
        _both_orders(subject, found)
    elif isinstance(subject.config, Kto):
        _labels(rows, found)
        _balance(subject, found)
        _both_labels(subject, found)
    elif isinstance(subject.config, Sft):
        _moved(rows, found)


def _scores(rows: Sequence[Mapping[str, Any]], found: Findings) -> None:
    told = [
        (row["score_chosen"], row["score_rejected"])
        for row in rows
        if _is_number(row.get("score_chosen")) and _is_number(row.get("score_rejected"))
    ]
    _say(
        [chosen < rejected for chosen, rejected in told if chosen != rejected],
        "of the pairs that have scores, the rejected answer has the higher one "
        "(score_chosen, score_rejected)",
        SWAP,
        found,
    )
    margins = [row["margin"] for row in rows if _is_number(row.get("margin"))]
    _say(
        [margin < 0 for margin in margins if margin],
        "of the pairs the column 'margin' is below 0: by it the rejected answer is the better one",
        f"{SWAP}, or write margins as chosen minus rejected",
        found,
    )


def _pairs(rows: Sequence[Mapping[str, Any]], found: Findings) -> None:
    said = [(spoken(row), row.get("solution")) for row in rows]
    right = [
        [_right(one.answers[side], gold) for side in ("chosen", "rejected")] for one, gold in said
    ]
    _say(
        [rejected for chosen, rejected in right if chosen != rejected],
        "of the pairs with one right answer, by the column 'solution', it is the rejected one",
        SWAP,
        found,
    )
    prompts = [_numbers(one.asked) for one, _ in said]
    chosen, rejected = (
        _belonging(prompts, [one.answers[side] for one, _ in said])
        for side in ("chosen", "rejected")
    )
    if chosen.elsewhere > MOST < rejected.here:
        found.error(
            "preference",
            f"in {chosen.elsewhere:.0%} of the pairs the chosen answer works with the numbers of "
            f"another row's prompt, and in {rejected.here:.0%} the rejected one with its own's",
            SWAP,
        )


def _labels(rows: Sequence[Mapping[str, Any]], found: Findings) -> None:
    said = [(spoken(row), row.get("solution"), row["label"]) for row in rows]
    told = [
        (_right(one.answers["completion"], gold), label)
        for one, gold, label in said
        if isinstance(gold, str) and answer_of(one.answers["completion"])
    ]
    right, wrong = ([label for judged, label in told if judged is each] for each in (True, False))
    # Both, as a label may well be of something else than of what is right.
    if min(len(right), len(wrong)) >= LEAST and sum(right) < MOST * len(right):
        _say(wrong, "of the wrong answers, by the column 'solution', the label is true, and of the "
             "right ones mostly false", TURN, found)  # fmt: skip
    prompts = [_numbers(one.asked) for one, *_ in said]
    good, bad = (
        _belonging(
            prompts,
            [one.answers["completion"] if label is wanted else None for one, _, label in said],
        )
        for wanted in (True, False)
    )
    if good.elsewhere > MOST < bad.here:
        found.error(
            "preference",
            f"{good.elsewhere:.0%} of the answers labelled true work with the numbers of another "
            f"row's prompt, and {bad.here:.0%} of those labelled false with their own's",
            TURN,
        )


def _both_orders(subject: Subject, found: Findings) -> None:
    sides = ("prompt", "chosen", "rejected")
    keys = [
        (_key(prompt, chosen, rejected), _key(prompt, rejected, chosen))
        for prompt, chosen, rejected in _looked_at(subject, sides)
    ]
    _taken_back(keys, "the same two answers stand the other way round", found)


def _both_labels(subject: Subject, found: Findings) -> None:
    keys = [
        (_key(prompt, completion, label), _key(prompt, completion, not label))
        for prompt, completion, label in _looked_at(subject, ("prompt", "completion", "label"))
    ]
    _taken_back(keys, "the same answer to the same prompt has the other label", found)


def _looked_at(subject: Subject, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return (tuple(row[name] for name in columns) for row in islice(subject.rows, COMPARED))


def _key(*said: Any) -> int:
    """A number, as the texts of many rows would be a good part of a run's memory."""
    return hash(json.dumps(said, default=str))


def _taken_back(keys: Sequence[tuple[int, int]], what: str, found: Findings) -> None:
    """keys: of what each row says, and of its opposite."""
    there = {own for own, _ in keys}
    _say(
        [opposite in there for _, opposite in keys],
        f"of the rows {what} in another row: each takes back what the other teaches",
        "keep one of each two",
        found,
    )


def _balance(subject: Subject, found: Findings) -> None:
    """Of all rows: a label that hardly occurs is learnt little of."""
    counted = Counter(subject.rows["label"])
    (common, most), (rare, least) = counted.most_common(2)
    config = subject.config
    assert isinstance(config, Kto)
    weights = {True: config.desirable_weight, False: config.undesirable_weight}
    flags = {True: "--desirable-weight", False: "--undesirable-weight"}
    if least and weights[common] * most > RARE * weights[rare] * least:
        found.warning(
            "labels",
            f"{most:,} rows are labelled {str(common).lower()} and {least:,} "
            f"{str(rare).lower()}, at weights of {weights[common]:g} and {weights[rare]:g}",
            f"add rows of the other label, or {flags[rare]} {weights[common] * most / least:.3g}",
        )


def _moved(rows: Sequence[Mapping[str, Any]], found: Findings) -> None:
    said = [spoken(row) for row in rows]
    answers = [next(iter(one.answers.values())) for one in said]
    belong = _belonging([_numbers(one.asked) for one in said], answers)
    if belong.elsewhere > 1.5 * MOST:
        found.error(
            "text",
            f"{belong.elsewhere:.0%} of the answers work with the numbers of another row's prompt, "
            "and not with their own's",
            MOVED,
        )


def _say(wrong: Sequence[bool], said: str, cure: str, found: Findings) -> None:
    share = sum(wrong) / len(wrong) if len(wrong) >= LEAST else 0.0
    if share > SOME:
        found.report(
            "preference",
            f"in {share:.0%} {said}",
            cure if share > MOST else "mend these rows",
            certain=share > MOST,
        )


def _right(answer: str, gold: Any) -> bool:
    return isinstance(gold, str) and same_answer(answer_of(answer), gold)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(text: str) -> frozenset[str]:
    return frozenset(_NUMBER.findall(text))


@dataclass(frozen=True, kw_only=True)
class Belonging:
    """Shares of the answers that hold all the numbers of their own prompt, and, without those, all
    of another row's. 0 where too few prompts have numbers to tell.
    """

    here: float
    elsewhere: float


def _belonging(prompts: Sequence[frozenset[str]], answers: Sequence[str | None]) -> Belonging:
    """A prompt of one number tells nothing: that may stand anywhere."""
    pairs = [
        (prompt, _numbers(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
        if answer is not None and len(prompt) > 1
    ]
    known = {prompt for prompt in prompts if len(prompt) > 1}
    asked = sum(answer is not None for answer in answers)
    if len(pairs) < max(LEAST, MOST * asked) or len(known) < LEAST:
        return Belonging(here=0.0, elsewhere=0.0)
    here = [prompt <= answer for prompt, answer in pairs]
    elsewhere = [
        [] if own else [prompt for prompt in known if prompt <= answer]
        for own, (_, answer) in zip(here, pairs, strict=True)
    ]
    homes = {max(found, key=lambda one: (len(one), sorted(one))) for found in elsewhere if found}
    # Answers that were moved have nearly as many homes as there are rows; the few numbers of a
    # short prompt stand in any long answer.
    moved = sum(map(bool, elsewhere)) if len(homes) > MOST * sum(map(bool, elsewhere)) else 0
    return Belonging(here=sum(here) / len(pairs), elsewhere=moved / len(pairs))
