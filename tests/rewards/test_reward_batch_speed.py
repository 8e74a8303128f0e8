"""A GRPO batch, 8 prompts × 16 completions with the repetitions a policy makes, against
math-verify called one by one. Every batch is new to both sides, and each judges it once.
"""

import json
import os
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import rewards
from rewards import accuracy
from rewards.pool import Pool

# Golds of MATH's kinds by a number, and what is answered to them.
MATH: list[tuple[str, list[str]]] = [
    ("\\frac{%d}{401}", ["\\frac{%d}{401}", "\\frac{%d}{41}", "0.5"]),
    ("x^2+%dx+1", ["x^2+1+%dx", "(x+1)^2+%dx-2x", "x^2+%d", "x^2+x+%d"]),
    ("(%d, \\frac{\\pi}{2})", ["(%d, \\pi/2)", "(%d, \\frac{\\pi}{2})", "(%d, \\pi)"]),
    ("%d\\sqrt{12}", ["2 \\cdot %d\\sqrt{3}", "%d\\sqrt{12}", "3\\sqrt{%d}", "%d"]),
    ("[1,%d)", ["[1,%d)", "[1,%d]", "1 \\le x < %d", "(1,%d)"]),
    ("%d-i", ["%d-i", "%d+i", "-i+%d", "%d"]),
    ("\\text{(C)}", ["\\text{(C)}", "\\text{(B)}"]),
    ("1,2,%d", ["1,2,%d", "%d,2,1", "1,2"]),
    ("\\frac{n(n+%d)}{2}", ["\\frac{n^2+%dn}{2}", "\\frac{n(n+%d)}{2}", "n(n+%d)"]),
    ("(-\\infty, %d] ", ["(-\\infty,%d]", "(-\\infty, %d)", "[%d, \\infty)"]),
]


def batch(shared_data: Path, seed: int) -> tuple[list[str], list[str]]:
    """Four word problems and four of the formulas above, with numbers of the batch's own; the
    bodies are real worked solutions, and a third of a prompt's completions repeat another.
    """
    rng = random.Random(seed)
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text().rstrip("\n").split("\n")
    bodies = []
    for line in rng.sample(lines, 32):
        body = json.loads(line)["answer"].partition("\n#### ")[0]
        bodies.append(re.sub(r"<<[^>]*>>", "", body).replace("$", ""))
    completions, golds = [], []
    for i in range(8):
        number = 1000 + 100 * seed + 11 * i
        if i < 4:
            gold, answers = "%d", ["%d", "%d.0", "%d0", "1%d"]
        else:
            gold, answers = MATH[(4 * seed + i) % len(MATH)]
        said: list[str] = []
        for _ in range(16):
            answer = rng.choice(answers).replace("%d", str(number))
            text = f"{rng.choice(bodies)}\nSo the answer is $\\boxed{{{answer}}}$."
            said.append(rng.choice(said) if said and rng.random() < 1 / 3 else text)
        completions += said
        golds += [gold.replace("%d", str(number))] * 16
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


def ratio(shared_data: Path, seed: int) -> float:
    """How many times as fast we are on a batch; the verdicts are the same."""
    reward = rewards.get("accuracy")
    completions, golds = batch(shared_data, seed)
    accuracy.forget()
    values, ours = timed(lambda: reward(completions, solution=golds))
    reference, theirs = timed(lambda: one_by_one(completions, golds))
    assert values == reference
    assert 0 < sum(values) < len(values)
    return theirs / ours


def test_a_batch_is_six_times_as_fast_with_the_same_verdicts(shared_data: Path) -> None:
    ratio(shared_data, 0)  # what either side imports, and the workers
    ratios = [ratio(shared_data, seed) for seed in range(1, 8)]
    print([round(one, 1) for one in ratios])
    assert statistics.median(ratios) >= 6, ratios  # measured: 40 to 90 on two idle cores


def worker_of(gold: str, answer: str) -> int:
    time.sleep(0.02)
    return os.getpid()


def test_answers_to_one_gold_go_to_one_worker_which_parses_it_once() -> None:
    pool = Pool(workers=2, memory_mb=256)
    try:
        pool.run(worker_of, [((str(i), "x"), {}) for i in range(4)], seconds=10)  # both are up
        calls = [((gold, str(i)), {}) for gold in "ab" for i in range(6)]
        found = [result.value for result in pool.run(worker_of, calls, seconds=10)]
    finally:
        pool.close()
    assert len(set(found[:6])) == len(set(found[6:])) == 1
    assert found[0] != found[6]
