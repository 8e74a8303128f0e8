"""Hostile completions settle within their limits, from any thread, and disturb nothing else."""

import json
import os
import resource
import threading
import time
from pathlib import Path

import pytest

import rewards
from rewards import Accuracy, guard

pytestmark = pytest.mark.alone

SECONDS = Accuracy().seconds
M = 1_000_000

# (completion, gold, value); None: only the limits matter.
CONSTRUCTED = [
    ("\\boxed{9^{9^{9^{9}}}}", "2", 0.0),
    ("\\boxed{9^{9^{9^9}}}", "9^{9^{9^{9}}}", 1.0),
    ("\\boxed{3}", "9^{9^{9^{9}}}", 0.0),
    ("\\boxed{2^{10^{12}}}", "2", 0.0),
    ("\\boxed{2^{99999999999}}", "x", 0.0),
    ("\\boxed{(1+x)^{10^6}}", "2", 0.0),
    ("\\boxed{(1+x+y)^{999}}", "x+y", 0.0),
    ("\\boxed{99999999!}", "2", 0.0),
    ("\\boxed{((((3!)!)!)!)!}", "2", 0.0),
    ("\\boxed{\\binom{12345678}{1234567}}", "1", 0.0),
    ("\\boxed{\\sum_{k=1}^{10^9} k^2}", "2", 0.0),
    ("\\boxed{" + "(" * 5000 + "x" + ")" * 5000 + "}", "2", 0.0),
    ("\\boxed{" + "\\sqrt{" * 3000 + "1" + "}" * 3000 + "}", "2", 0.0),
    ("\\boxed{" * 20_000 + "2", "7", 0.0),
    ("\\boxed{" + "7" * M + "}", "7", 0.0),
    ("\\boxed{0." + "3" * 100_000 + "}", "x", 0.0),
    ("the answer is " * 70_000 + "\\boxed{2}", "2", 1.0),
    ("\\boxed{2} and " * 70_000, "2", 1.0),
    ("1 " * (M // 2) + "\n#### 2", "2", 1.0),
    ("final answer is" + " " * M + "$2$. I hope it is correct.", "2", 1.0),
    ("<answer>" * 100_000 + "2", "2", 1.0),
    ("<answer>" + "." * M + "</answer>", "2", 0.0),
    ("*" * M + "\n**Answer:** 2", "2", 1.0),
    ("a" * M, "2", 0.0),
    ("\\[" * (M // 2), "2", 0.0),
    ("\n" * M + "A: 2", "2", 1.0),
    ("\x00\u202e\\boxed{2}\u202c\x00", "2", 1.0),
    ("\ud800\\boxed{2}\udfff", "2", 1.0),
    ("\\boxed{x\ud800}", "x", 0.0),
    ("\\boxed{\x00}", "x", 0.0),
    ("", "2", 0.0),
    ('The answer is __import__("os").system("touch /tmp/owned")', "2", 0.0),
]


def settle(completion: str, gold: str) -> tuple[rewards.Score, float]:
    began = time.perf_counter()
    (score,) = rewards.get("accuracy").score([completion], solution=[gold])
    return score, time.perf_counter() - began


def in_a_thread(function: object) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("case", range(len(CONSTRUCTED)))
def test_constructed(case: int) -> None:
    completion, gold, value = CONSTRUCTED[case]
    settle("\\boxed{\\sin(x)}", "\\cos(x)")  # workers are up

    def check() -> None:
        score, seconds = settle(completion, gold)
        assert score.value == value
        assert seconds < SECONDS + 1

    in_a_thread(check)
    # Nothing else is disturbed.
    score, seconds = settle("\\boxed{\\sin(a)+b}", "b+\\sin(a)")
    assert score.value == 1.0 and seconds < 1


def test_recorded(shared_data: Path) -> None:
    """At least 75 % of the verdicts agreed on (what math-verify reaches with its own limits of 5
    s).
    """
    lines = (shared_data / "cases" / "hostile.jsonl").read_text().rstrip("\n").split("\n")
    rows = [json.loads(line) for line in lines]
    settle("\\boxed{\\sin(x)}", "\\cos(x)")
    right: dict[str, bool] = {}

    def check() -> None:
        for row in rows:
            score, seconds = settle(row["completion"], row["gold"])
            assert seconds < SECONDS + 1, row["id"]
            assert score.outcome in ("ok", "timeout", "memory", "crash", "unscorable")
            if row["expected"] is not None:
                right[row["id"]] = score.value == float(row["expected"])

    in_a_thread(check)
    wrong = [case for case, value in right.items() if not value]
    assert len(right) >= 80
    assert len(wrong) <= 0.1 * len(right), wrong  # measured: 7 of 86


def test_one_batch_of_hostile_and_honest_answers(shared_data: Path) -> None:
    """Honest neighbours in one batch keep their verdicts and the batch its order."""
    hostile = ["\\boxed{(1+x+y)^{999}}", "\\boxed{\\tan(x^{999}+1)^{999}+(a+b+c)^{300}}"]
    honest = [f"\\boxed{{{i}+\\sin(z)}}" for i in range(30)]
    completions = [hostile[0], *honest, hostile[1]]
    settle("\\boxed{\\sin(x)}", "\\cos(x)")
    golds = ["x+y", *[f"\\sin(z)+{i}" for i in range(30)], "a+b"]
    began = time.perf_counter()
    values = rewards.get("accuracy")(completions, solution=golds)
    assert values == [0.0, *[1.0] * 30, 0.0]
    assert time.perf_counter() - began < 2 * SECONDS + 1


def test_memory_stays_within_the_limit() -> None:
    """A worker that an expansion makes grow is stopped at its limit; this process does not grow
    with it.
    """
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reward = rewards.get("accuracy", seconds=30.0, memory_mb=64)
    (score,) = reward.score(["\\boxed{(1+x+y+z+w)^{60}}"], solution=["(x+y)^{2}+z-w"])
    assert (score.value, score.outcome) == (0.0, "memory")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - here < 50_000  # KiB


def test_limits_are_refused_in_microseconds() -> None:
    for text in (
        "9^{9^{9^9}}",
        "1000000!",
        "((((3!)!)!)!)!",
        "7" * 2000,
        "(" * 500,
        "2^{10^{12}}",
        "e^{e^{e^{e}}}",
    ):
        assert guard.too_much(text) is not None
        began = time.perf_counter()
        for _ in range(100):
            guard.too_much(text)
        assert (time.perf_counter() - began) / 100 < 1e-3
    for text in (
        "2^{2^{3}}",
        "e^{x^2}",
        "10^{100}",
        "24!^2",
        "\\frac{1}{2004!}",
        "x^{800}",
        "2^{99}",
    ):
        assert guard.too_much(text) is None, text


def test_no_process_is_left_behind() -> None:
    settle("\\boxed{(1+x+y)^{998}}", "x+y")
    workers = rewards.pool.shared(Accuracy().memory_mb, ("math_verify", "rewards.symbolic"))
    children = Path(
        f"/proc/{workers.zygote.process.pid}/task/{workers.zygote.process.pid}/children"
    )
    alive = {int(pid) for pid in children.read_text().split()}
    assert alive == {worker.pid for worker in workers.idle}
    assert all(os.getpgid(pid) == pid for pid in alive)
