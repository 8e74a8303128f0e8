"""The rewards in verl's, OpenRLHF's and verifiers' shapes, and TRL functions as rewards."""

import asyncio
import inspect

import pool_functions as functions
import pytest

import rewards
from rewards import Accuracy, Format, WeightedSum
from rewards.adapters import to_openrlhf, to_verifiers, to_verl

BOTH = WeightedSum(((1.0, Accuracy()), (0.1, Format())))


def test_verl() -> None:
    compute_score = to_verl(rewards.get("accuracy"))
    assert compute_score("gsm8k", "#### 18", "18", {"index": 3}) == 1.0
    assert compute_score("gsm8k", "#### 17", "18") == 0.0
    named = compute_score(
        data_source="gsm8k", solution_str="#### 18", ground_truth="18", extra_info=None
    )
    assert named == 1.0


def test_openrlhf() -> None:
    reward_func = to_openrlhf(BOTH)
    result = reward_func(
        queries=["Is 9 right?<think>a</think><answer>18</answer>", "What? #### 17"],
        prompts=["Is 9 right?", "What?"],
        labels=["18", "18"],
        step=3,
    )
    assert result["rewards"] == pytest.approx([1.1, 0.0])
    assert result["scores"] == [1.0, 0.0]  # correctness, for filtering
    assert result["extra_logs"] == {"accuracy": [1.0, 0.0], "format": [1.0, 0.0]}
    wrapped = to_openrlhf(BOTH, tensor=tuple)(["#### 18"], [""], ["18"])
    assert wrapped["rewards"] == (1.0,) and wrapped["extra_logs"]["format"] == (0.0,)


def test_openrlhf_never_reads_the_prompt() -> None:
    reward_func = to_openrlhf(rewards.get("accuracy"))
    assert reward_func(["Say #### 18. No."], ["Say #### 18."], ["18"])["rewards"] == [0.0]


def test_verifiers() -> None:
    function = to_verifiers(rewards.get("accuracy"))
    assert inspect.iscoroutinefunction(function) and function.__name__ == "accuracy"
    completion = [{"role": "assistant", "content": "#### 18"}]
    assert asyncio.run(function(completion=completion, answer="18", state={}, task="x")) == 1.0
    assert asyncio.run(function(completion=completion, info={"solution": "17"})) == 0.0
    length = to_verifiers(rewards.get("soft_overlong", max_len=4, cache=2))
    assert asyncio.run(length(completion="xxx", prompt="?", answer="18")) == -0.5


def lengths(completions: list[str], prompts: list[str], **columns: object) -> list[float | None]:
    return [float(len(c)) if c else None for c in completions]


async def async_lengths(completions: list[str], **columns: object) -> list[float]:
    await asyncio.sleep(0)
    return [float(len(c)) for c in completions]


def too_few(completions: list[str], **columns: object) -> list[float]:
    return [1.0]


def test_from_trl() -> None:
    reward = rewards.from_trl(lengths)
    assert reward.__name__ == "lengths"
    assert reward(["ab", ""], solution=["x", "y"]) == [2.0, None]
    assert reward.score(["ab"])[0].parts == {"lengths": 2.0}
    assert rewards.from_trl(reward) is reward
    with pytest.raises(ValueError, match="returned 1 values for 2 completions"):
        rewards.from_trl(too_few)(["a", "b"])
    with pytest.raises(TypeError, match="a TRL reward is a function"):
        rewards.from_trl("accuracy")


def test_from_trl_awaits_also_inside_a_running_loop() -> None:
    reward = rewards.from_trl(async_lengths)
    assert reward(["ab"]) == [2.0]

    async def inside() -> list[float | None]:
        return reward(["abc"])

    assert asyncio.run(inside()) == [3.0]


def test_from_trl_under_limits() -> None:
    reward = rewards.from_trl(functions.slow_if_asked, seconds=0.5)
    scores = reward.score(["ab", "slow", "abc"], solution=["1", "2", "3"])
    assert [(s.value, s.outcome) for s in scores] == [(2.0, "ok"), (0.0, "timeout"), (3.0, "ok")]
    assert reward.__name__ == "slow_if_asked"
