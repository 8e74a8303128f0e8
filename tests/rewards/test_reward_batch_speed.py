"""A GRPO batch, 8 prompts × 16 completions with the repetitions a policy makes, against
math-verify called one by one.
"""

import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import rewards
from rewards import accuracy

MATH = [
    ("\\frac{63}{400}", ["\\frac{63}{400}", "\\frac{126}{800}", "0.1575", "\\frac{63}{40}"]),
    ("x^2+2x+1", ["(x+1)^2", "x^2+2x+1", "x^2+1", "x^2+x+1"]),
    ("(3, \\frac{\\pi}{2})", ["(3, \\pi/2)", "(3, \\frac{\\pi}{2})", "(3, \\pi)"]),
    ("2\\sqrt{3}", ["\\sqrt{12}", "2\\sqrt{3}", "3\\sqrt{2}", "2\\sqrt 3"]),
    ("[1,2)", ["[1,2)", "[1,2]", "1 \\le x < 2"]),
    ("8-i", ["8-i", "8+i", "-i+8", "8"]),
    ("\\text{(C)}", ["\\text{(C)}", "\\text{(B)}"]),
    ("1,2,3", ["1,2,3", "3,2,1", "1,2"]),
]


def batch(shared_data: Path, seed: int) -> tuple[list[str], list[str]]:
    """Four word problems, four of the formulas above; the bodies are real worked solutions."""
    rng = random.Random(seed)
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text().rstrip("\n").split("\n")
    solutions = [json.loads(line)["answer"] for line in rng.sample(lines, 8)]
    completions, golds = [], []
    for i, solution in enumerate(solutions):
        body, _, number = solution.partition("\n#### ")
        body = re.sub(r"<<[^>]*>>", "", body).replace("$", "")
        if i < 4:
            gold = number.replace(",", "")
            answers = [gold, f"{gold}.0", f"{gold}0", str(int(gold) + 1)]
        else:
            gold, answers = MATH[(seed + i) % len(MATH)]
        for _ in range(16):
            completions.append(f"{body}\nSo the answer is $\\boxed{{{rng.choice(answers)}}}$.")
            golds.append(gold)
    return completions, golds


def one_by_one(completions: list[str], golds: list[str]) -> list[float]:
    from math_verify import parse, verify

    values = []
    for completion, gold in zip(completions, golds, strict=True):
        values.append(float(verify(parse(f"\\boxed{{{gold}}}"), parse(completion))))
    return values


def timed(function: Callable[[], list[float]]) -> tuple[list[float], float]:
    began = time.perf_counter()
    values = function()
    return values, time.perf_counter() - began


def test_a_batch_is_six_times_as_fast_with_the_same_verdicts(shared_data: Path) -> None:
    reward = rewards.get("accuracy")
    ratios = []
    for seed in range(5):
        completions, golds = batch(shared_data, seed)
        ours, theirs = [], []
        for _ in range(3):  # the fastest of three: other processes share the machine
            accuracy.forget()
            values, seconds = timed(lambda: reward(completions, solution=golds))  # noqa: B023
            ours.append(seconds)
            reference, seconds = timed(lambda: one_by_one(completions, golds))  # noqa: B023
            theirs.append(seconds)
            assert values == reference
        ratios.append(min(theirs) / min(ours))
    print(ratios)
    assert sorted(ratios)[2] >= 6, ratios  # measured: 9 to 30 on two idle cores
