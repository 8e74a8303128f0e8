"""A batch of 8 x 16 completions judged: by our reward in one call, by math-verify one by one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align.bench.case import Case
from align.bench.wire import Channel
from align.training.meter import Meter

PROMPTS, SAMPLES = 8, 16
AGAIN = 1 / 3  # of a prompt's completions that are one of those before, word for word
# What a worked solution is made of; one to four of these are 60 to 200 tokens.
STEPS = (
    "Let $x = {a}$ and $y = {b}$. Then $x + y = {a} + {b} = {sum}$, and we keep this for later.",
    r"Multiply both sides by ${c}$, so $\frac{{x}}{{{c}}} + {a} = {b}$ turns into "
    r"$x + {c} \cdot {a} = {c} \cdot {b}$.",
    r"Half of ${sum}$ is $\frac{{{sum}}}{{2}}$, so $\sqrt{{{sum} + {c}}}$ lies above ${c}$.",
    "There are {a} cases with {c} in each, that is ${a} * {c} = {times}$ in all, and {b} more.",
    r"By symmetry $({a} - x)^2 = x^2 - {twice} x + {square}$, which is least at $x = {a}$.",
)
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
    turn: worked solutions of 60 to 200 tokens.

    alike: a prompt's 16 completions share four answers, and a third of them are the same to the
    letter, as a policy's are; else every completion of the batch has a text and an answer of its
    own.
    """
    draw = random.Random(f"scoring {turn}")
    completions, golds = [], []
    for prompt in range(PROMPTS):
        number = 100 * (turn + 2) + SAMPLES * prompt
        forms = FORMULAS[(turn + prompt) % len(FORMULAS)] if prompt % 2 else _numbers
        said: list[str] = []
        for sample in range(SAMPLES):
            answer = draw.choice(forms(number if alike else number + sample))
            text = f"{_solution(draw)}\nSo the answer is $\\boxed{{{answer}}}$."
            said.append(draw.choice(said) if alike and said and draw.random() < AGAIN else text)
        completions += said
        golds += [forms(number)[0]] * SAMPLES
    return completions, golds


def _solution(draw: random.Random) -> str:
    lines = []
    for step in draw.choices(STEPS, k=draw.randint(1, 4)):
        a, b, c = (draw.randint(2, 90) for _ in range(3))
        more = {"sum": a + b, "times": a * c, "twice": 2 * a, "square": a * a}
        lines.append(step.format(a=a, b=b, c=c, **more))
    return "\n".join(lines)


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
            done = self.meter.end()
            del done["cores"]  # the reward's workers are processes of their own
            channel.answer(**done, verdicts=verdicts, waited=channel.waited)

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
