"""Everyday chat with good and bad answers, made by rule from short hand-written lists.

| use | rows |
|---|---|
| `sft` | prompt, completion: good answers, and refusals where one should decline |
| `prompts` | prompt alone, its solution null: for GRPO and PPO |
| `helpful` | prompt, chosen, rejected: a good answer against an unhelpful one |
| `harmless` | prompt, chosen, rejected: half refuse what should be declined, half do not refuse \
what is harmless |

Every row has a `kind`, "general" or "decline". What a model could win by without reading the
request is kept even between the sides: lengths by lot, wrong answers are mostly right ones to
another request, and a refusal is as often wrong as right. Train and test are disjoint by
construction: all phrasings about one thing (a country, a word, a person in a topic) fall on the
same side, and wrong answers come from the row's own side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from data.everyday.requests import Request, declined, ordinary, phrases, said, twins
from data.prompts import Style, check_style, dress
from data.rows import DataError, Row, assistant, dataset, user
from data.split import check_side

if TYPE_CHECKING:
    from datasets import Dataset

Use = Literal["sft", "prompts", "helpful", "harmless"]

# Of ten unhelpful answers so many belong to another request; the others say nothing.
MISPLACED = 7


@dataclass(frozen=True, kw_only=True)
class Everyday:
    """Everyday requests, deterministic in all fields, none twice in a split.

    split: train or test. use: what the rows are for, see above. size: rows (None: all there are).
    thinking: answers as <think>one sentence</think> and <answer>…</answer>, else the answer alone.
    seed: order, and which bad answer stands against a good one.
    """

    split: str = "train"
    use: Use = "sft"
    size: int | None = None
    thinking: bool = False
    seed: int = 0
    style: Style = "chat"
    system: str | None = None

    def __post_init__(self) -> None:
        check_style(self.style, self.system)
        check_side(self.split, self.name)
        if self.use not in get_args(Use):
            raise DataError(
                f"everyday: use={self.use!r} is unknown; the uses are {', '.join(get_args(Use))}"
            )
        if self.size is not None and self.size < 1:
            raise DataError(f"everyday: size={self.size} must be at least 1")

    @property
    def name(self) -> str:
        """Short name."""
        return "everyday"

    def rows(self) -> Dataset:
        """The rows in an order drawn by lot. Raises DataError where there are fewer than `size`."""
        rows = list(self._rows(random.Random(f"everyday {self.use} {self.seed}")))
        if self.size is not None and len(rows) < self.size:
            raise DataError(
                f"everyday: there are {len(rows)} rows of split={self.split!r} for "
                f"use={self.use!r}, not {self.size}; lower size"
            )
        return dataset(
            dress(row, style=self.style, system=self.system) for row in rows[: self.size]
        )

    def _rows(self, lot: random.Random) -> Iterator[Row]:
        general = [*ordinary(self.split), *twins(self.split)]
        declines = declined(self.split)
        if self.use == "harmless":
            requests = _even(declines, twins(self.split), ordinary(self.split), lot)
        else:
            requests = general if self.use == "helpful" else [*general, *declines]
            lot.shuffle(requests)
        for request in requests:
            row: Row = {"prompt": user(request.text), "kind": request.kind}
            if self.use == "prompts":
                yield row | {"solution": None}
            elif self.use == "sft":
                good = lot.choice(request.good)
                yield row | {"completion": assistant(said(good, self.thinking))}
            else:
                bad = request.bad if self.use == "harmless" else _unhelpful(request, general, lot)
                yield row | self._pair(request, bad, lot)

    def _pair(self, request: Request, bad: tuple[tuple[str, str], ...], lot: random.Random) -> Row:
        """A good answer and a bad one; the lot says which of them is to be the longer one."""
        chosen = [said(answer, self.thinking) for answer in request.good]
        rejected = [said(answer, self.thinking) for answer in bad]
        pairs = [(good, other) for good in chosen for other in rejected]
        longer = lot.random() < 0.5
        fitting = [pair for pair in pairs if (len(pair[0]) > len(pair[1])) is longer]
        good, other = lot.choice(fitting or pairs)
        return {"chosen": assistant(good), "rejected": assistant(other)}


def _even(
    declines: list[Request], close: list[Request], far: list[Request], lot: random.Random
) -> list[Request]:
    """As many harmless requests as such to decline, half of them close to those in their words."""
    for each in (close, far):
        lot.shuffle(each)
    half = len(declines) // 2
    requests = [*declines, *close[:half], *far[: len(declines) - half]]
    lot.shuffle(requests)
    return requests


def _unhelpful(
    request: Request, others: list[Request], lot: random.Random
) -> tuple[tuple[str, str], ...]:
    """Bad answers to choose from: all to one other request, or all empty of content."""
    if lot.randrange(10) >= MISPLACED:
        thought = request.good[0][0]
        return tuple((thought, phrase) for phrase in phrases())
    while True:
        other = lot.choice(others)
        if other.about != request.about and not (
            other.interchangeable and other.family == request.family
        ):
            return other.good
