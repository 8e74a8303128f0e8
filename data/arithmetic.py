"""Arithmetic with operator precedence, `2 + 3 * 4`, made by rule, with worked solutions.

    prompt      [user: "Compute 12 + 7 * 3."]
    completion  [assistant: "<think>7 * 3 = 21\\n12 + 21 = 33</think>\\n<answer>33</answer>"]
    solution    "33"

Integers only; a division always comes out even. Train and test are disjoint by construction: all
problems made of the same numbers and operators, in whatever order and bracketing, fall on the same
side (see `split`), so `12 + 7 * 3` in training rules out `7 * 3 + 12` in the test.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.equations import EquationError, Work, decimal, work
from data.prompts import Style, check_style, dress, worked
from data.rows import DataError, Row, assistant, dataset, user
from data.split import check_side, side

if TYPE_CHECKING:
    from datasets import Dataset

# So many misses in a row mean that there is nothing left to find.
PATIENCE = 30_000


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Arithmetic problems, deterministic in all fields, none twice in a split.

    split: train or test. size: problems. operators: how many each problem has, at most;
    min_operators: at least (None: the same). max_number: the largest number written. max_factor:
    the largest one beside * or / (None: max_number). max_value: bound on every value on the way.
    symbols: the operators in use. parentheses: bracket a part of each problem that has two
    operators or more. precedence: such a problem mixes * / with + -. negatives: values below zero
    may occur.
    """

    split: str = "train"
    size: int = 1000
    operators: int = 2
    min_operators: int | None = None
    max_number: int = 30
    max_factor: int | None = None
    max_value: int = 1000
    symbols: str = "+-*"
    parentheses: bool = False
    precedence: bool = True
    negatives: bool = False
    seed: int = 0
    style: Style = "chat"
    system: str | None = None

    def __post_init__(self) -> None:
        check_style(self.style, self.system)
        check_side(self.split, self.name)
        for field in ("size", "operators", "max_value"):
            if getattr(self, field) < 1:
                raise DataError(f"arithmetic: {field}={getattr(self, field)} must be at least 1")
        for field in ("max_number", "max_factor"):
            if (getattr(self, field) or 2) < 2:
                raise DataError(f"arithmetic: {field}={getattr(self, field)} must be at least 2")
        if not 1 <= self._fewest <= self.operators:
            raise DataError(
                f"arithmetic: min_operators={self._fewest} must lie between 1 and "
                f"operators={self.operators}"
            )
        if not self.symbols or set(self.symbols) - set("+-*/"):
            raise DataError(f"arithmetic: symbols={self.symbols!r} must be some of + - * /")

    @property
    def name(self) -> str:
        """Short name."""
        return "arithmetic"

    @property
    def _fewest(self) -> int:
        return self.operators if self.min_operators is None else self.min_operators

    def rows(self) -> Dataset:
        """`size` rows of prompt, completion and solution. Raises DataError where fewer problems
        exist.
        """
        return dataset(dress(row, style=self.style, system=self.system) for row in self._rows())

    def _rows(self) -> Iterator[Row]:
        generator = random.Random(f"arithmetic {self.seed}")
        seen: set[str] = set()
        misses = 0
        while len(seen) < self.size:
            expression, kinship = self._draw(generator)
            solved = (
                self._solve(expression)
                if side(kinship) == self.split and expression not in seen
                else None
            )
            if solved is None:
                misses += 1
                if misses > PATIENCE:
                    raise DataError(
                        f"arithmetic: only {len(seen)} of {self.size} {self.split} problems "
                        "found with these settings; lower size, or raise "
                        "operators, max_number or max_value"
                    )
                continue
            misses = 0
            seen.add(expression)
            answer = decimal(solved.value)
            yield {
                "prompt": user(f"Compute {expression}."),
                "completion": assistant(worked("\n".join(solved.lines), answer)),
                "solution": answer,
            }

    def _draw(self, generator: random.Random) -> tuple[str, str]:
        """An expression, and the key of all expressions with the same numbers and operators."""
        count = generator.randint(self._fewest, self.operators)
        signs = [generator.choice(self.symbols) for _ in range(count)]
        numbers = []
        for place in range(count + 1):
            factor = bool(set(signs[max(place - 1, 0) : place + 1]) & set("*/"))
            largest = (
                min(self.max_factor or self.max_number, self.max_number)
                if factor
                else self.max_number
            )
            # Times 1 teaches nothing, and would be most of the even divisions.
            numbers.append(str(generator.randint(2 if factor else 1, largest)))
        kinship = " ".join(sorted(numbers + signs))
        tokens = list(numbers)
        if self.parentheses and count > 1:
            # A bracket around two operands or more, but not around all.
            first, last = generator.choice(_spans(count + 1))
            tokens[first], tokens[last] = f"({tokens[first]}", f"{tokens[last]})"
        expression = tokens[0] + "".join(
            f" {sign} {token}" for sign, token in zip(signs, tokens[1:], strict=True)
        )
        return expression, kinship

    def _solve(self, expression: str) -> Work | None:
        """The worked solution where it obeys the settings, else None."""
        present = set(expression)
        mixed = bool(present & set("*/")) and bool(present & set("+-"))
        mixable = bool(set(self.symbols) & set("*/")) and bool(set(self.symbols) & set("+-"))
        try:
            solved = work(expression)
        except EquationError:
            return None
        if self.precedence and mixable and len(solved.lines) > 1 and not mixed:
            return None
        lowest = -self.max_value if self.negatives else 0
        fits = all(
            value.denominator == 1 and lowest <= value <= self.max_value for value in solved.values
        )
        return solved if fits else None


def _spans(count: int) -> list[tuple[int, int]]:
    pairs = [(first, last) for first in range(count) for last in range(first + 1, count)]
    return [pair for pair in pairs if pair != (0, count - 1)]
