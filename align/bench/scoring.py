"""A batch of 8 x 16 completions judged: by our reward in one call, by math-verify one by one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align.bench.case import Case
from align.bench.meter import Meter
from align.bench.wire import Channel

PROMPTS, SAMPLES = 8, 16
# A gold of MATH's kinds and what is answered to it, two right and two wrong, by a number.
FORMULAS: tuple[Callable[[int], tuple[str, str, str, str]], ...] = (
    lambda n: (rf"\frac{{{n}}}{{401}}", rf"\frac{{{2 * n}}}{{802}}", rf"\frac{{{n}}}{{41}}", "0.5"),
    lambda n: (f"x^2+{2 * n}x+{n * n}", f"(x+{n})^2", f"x^2+{n}", f"x^2+x+{n}"),
    lambda n: (rf"({n}, \frac{{\pi}}{{2}})", rf"({n}, \pi/2)", rf"({n}, \pi)", rf"(2, \pi/{n})"),
    lambda n: (rf"{n}\sqrt{{3}}", rf"\sqrt{{{3 * n * n}}}", rf"3\sqrt{{{n}}}", f"{n}"),
    lambda n: (f"[1,{n})", rf"1 \le x < {n}", f"[1,{n}]", f"(1,{n})"),
    lambda n: (f"{n}-i", f"-i+{n}", f"{n}+i", f"{n}"),
    lambda n: (f"1,2,{n}", f"{n},2,1", "1,2", f"1,3,{n}"),
)


def batch(turn: int, *, alike: bool) -> tuple[list[str], list[str]]:
    """Completions and golds, half of them numbers, half formulas, with content of its own each
    turn.

    alike: a prompt's 16 completions share four answers, as a policy's do; else every completion of
    the batch has an answer of its own. What is said before the answer differs throughout.
    """
    draw = random.Random(f"scoring {turn}")
    completions, golds = [], []
    for prompt in range(PROMPTS):
        number = 100 * (turn + 2) + SAMPLES * prompt
        forms = FORMULAS[(turn + prompt) % len(FORMULAS)] if prompt % 2 else _numbers
        for sample in range(SAMPLES):
            answer = draw.choice(forms(number if alike else number + sample))
            one, other = draw.randint(2, 90), draw.randint(2, 90)
            completions.append(
                f"First we find {one} + {other} = {one + other}, then we take half of it and "
                f"compare with the other side.\nThe answer is $\\boxed{{{answer}}}$."
            )
            golds.append(forms(number)[0])
    return completions, golds


def _numbers(n: int) -> tuple[str, str, str, str]:
    return str(n), f"{n}.0", f"{n}0", str(n + 1)


class Scoring:
    """Judges a batch for each order. rows of the case: a samples.jsonl, whose rows are taken in
    their order instead of those made here. count: 1 for batches without answers alike.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.meter = Meter("cpu")
        self.recorded = []
        if case.rows:
            lines = Path(case.rows).read_text().rstrip("\n").split("\n")
            self.recorded = [json.loads(line) for line in lines]

    def serve(self, channel: Channel) -> None:
        channel.answer()
        while True:
            turn = channel.next()["turn"] + 1
            completions, golds = self._batch(turn)
            self.forget()
            self.meter.begin()
            verdicts = self.judge(completions, golds)
            channel.answer(**self.meter.end(), verdicts=verdicts, waited=channel.waited)

    def judge(self, completions: list[str], golds: list[str]) -> list[float]:
        """1.0 for a right answer, else 0.0."""
        raise NotImplementedError

    def forget(self) -> None:
        """What earlier batches left behind, if anything."""

    def _batch(self, turn: int) -> tuple[list[str], list[str]]:
        if not self.recorded:
            return batch(turn, alike=not self.case.count)
        size = PROMPTS * SAMPLES
        first = turn * size % max(1, len(self.recorded) - size + 1)
        rows = self.recorded[first : first + size]
        return [row["completion"] for row in rows], [row["solution"] for row in rows]


class Ours(Scoring):
    """One call of the reward; its workers are up, its memory is empty."""

    def judge(self, completions: list[str], golds: list[str]) -> list[float]:
        import rewards

        scores = rewards.Accuracy().score(completions, solution=golds)
        return [float(score.value or 0.0) for score in scores]

    def forget(self) -> None:
        from rewards import accuracy

        accuracy.forget()


class OneByOne(Scoring):
    """`parse` of both and `verify`, as a reward function without anything around it does."""

    def judge(self, completions: list[str], golds: list[str]) -> list[float]:
        from math_verify import parse, verify

        return [
            float(verify(parse(f"\\boxed{{{gold}}}"), parse(completion)))
            for completion, gold in zip(completions, golds, strict=True)
        ]


def runner(case: Case, side: Any) -> Scoring:
    return Ours(case) if side == "ours" else OneByOne(case)
