"""`import rewards` is quick and loads no torch, no sympy and nothing else of this project; scoring
does not either.
"""

import subprocess
import sys
import textwrap

import pytest

CODE = textwrap.dedent(
    """
    import sys, time

    began = time.perf_counter()
    import rewards

    seconds = time.perf_counter() - began
    golds = ["1+\\\\sin(x)", "18"]
    values = rewards.get("accuracy")(["\\\\boxed{\\\\sin(x)+1}", "#### 18"], solution=golds)
    assert values == [1.0, 1.0]
    for name in rewards.names():
        params = {"max_len": 9, "cache": 3} if name == "soft_overlong" else {}
        rewards.get(name, **params)(["<think>a</think><answer>4</answer>"], solution=["4"])
    import rewards.adapters

    heavy = ("torch", "sympy", "numpy", "align", "data", "math_verify")
    print(seconds, *[module for module in heavy if module in sys.modules])
    """
)


@pytest.mark.alone
def test_light_and_quick() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
        for _ in range(3)
    ]
    assert [run[1:] for run in runs] == [[], [], []]
    assert min(float(run[0]) for run in runs) < 0.3
