"""Rows laid out in packs as `align.packing` does it, by their lengths alone, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

PADDING = 1.15  # of attention's small batches among themselves, over the pairs that are needed
PAIRS = 1_500  # of a query and a key, that take as much memory as a token


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tokens of a prompt and of each completion of it."""

    prompt: int
    completions: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prompt + sum(self.completions)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A pack. tokens: computed; trained: those with a log-probability; pairs: of a query and a key;
    read: keys, a prompt's counted for each of its completions too; longest: of its sequences.
    """

    tokens: int
    trained: int
    pairs: int
    read: int
    longest: int

    @property
    def weight(self) -> float:
        """By which packs compare."""
        return self.tokens + self.pairs / PAIRS


def packed(rows: Sequence[Row], *, scored: bool = False) -> Packed:
    """The pack of these rows. scored: one number is read of a completion, not one a token."""
    pairs = read = trained = 0
    for row in rows:
        pairs += row.prompt**2 + sum(one * (row.prompt + one) for one in row.completions)
        read += row.prompt + sum(row.prompt + one for one in row.completions)
        trained += len(row.completions) if scored else sum(row.completions)
    return Packed(
        tokens=sum(row.tokens for row in rows),
        trained=trained,
        pairs=round(PADDING * pairs),
        read=round(PADDING * read),
        longest=max(row.prompt + max(row.completions) for row in rows),
    )


def first_fit(rows: Iterable[Row], budget: int) -> list[list[Row]]:
    """The packs of an optimizer step whose rows stay whole."""
    bins: list[list[Row]] = []
    rooms: list[int] = []
    for row in sorted(rows, key=lambda row: row.tokens, reverse=True):
        tokens = row.tokens
        place = next((i for i, room in enumerate(rooms) if tokens <= room), len(bins))
        if place == len(bins):
            bins.append([])
            rooms.append(budget)
        bins[place].append(row)
        rooms[place] -= tokens
    return bins


def drawn(rows: Sequence[Row], steps: Iterable[int], seed: int) -> Iterator[list[Row]]:
    """Rows of optimizer steps of so many each, in the order of a run. Brings torch, whose shuffle
    it is.
    """
    from align.order import at

    order = (rows[at(place, len(rows), seed)] for place in count())
    for size in steps:
        yield list(islice(order, size))


def heaviest(packs: Iterable[Packed]) -> Packed | None:
    """None of none."""
    return max(packs, key=lambda one: one.weight, default=None)


def filled(rows: Iterable[Row], budget: int, most: int) -> list[Row]:
    """The first row, and the next ones that still fit beside it."""
    found: list[Row] = []
    used = 0
    for row in rows:
        if len(found) == most:
            break
        if not found or used + row.tokens <= budget:
            found.append(row)
            used += row.tokens
    return found


def cut(row: Row, budget: int) -> list[Row]:
    """A group that does not fit, between completions; its prompt is repeated."""
    pieces: list[list[int]] = []
    room = 0
    for length in row.completions:
        if not pieces or length > room:
            pieces.append([])
            room = budget - row.prompt
        pieces[-1].append(length)
        room -= length
    return [Row(prompt=row.prompt, completions=tuple(piece)) for piece in pieces]
