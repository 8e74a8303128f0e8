"""Cases recorded from the tests that TRL, Open R1 and NeMo RL keep for their own rewards.

Where a project means something else than we do, `OURS` says what we answer, and why.
"""

import json
from pathlib import Path

import pytest

import rewards

OUR_NAMES = {
    "accuracy_reward": "accuracy",
    "reasoning_accuracy_reward": "accuracy",
    "math_expression_reward": "accuracy",
    "exact_answer_alphanumeric_reward": "accuracy",
    "cosine_scaled_reward": "cosine",
    "format_reward": "format",
    "reasoning_steps_reward": "reasoning_steps",
    "repetition_penalty_reward": "repetition",
    "soft_overlong_punishment": "soft_overlong",
}
OUR_PARAMS = {"ngram_size": "n", "max_completion_len": "max_len", "soft_punish_cache": "cache"}
# TRL's defaults of cosine are wider than ours.
TRL_COSINE = {
    "min_value_wrong": -1.0,
    "max_value_wrong": -0.5,
    "min_value_correct": 0.5,
    "max_value_correct": 1.0,
}
OURS = {
    # TRL leaves out (None) what cannot be parsed; here it is neutral.
    ("accuracy_reward", "Answer is forty two."): 0.5,
    ("accuracy_reward", "Some other content. \\boxed{43}."): 0.5,
    ("reasoning_accuracy_reward", "<think> Reasoning content </think> \\boxed{42}"): 0.5,
    # NeMo RL reads the answer tag only.
    ("math_expression_reward", "Let me solve this... The answer is 2x + 3"): 1.0,
    # NeMo RL drops all punctuation inside words.
    ("exact_answer_alphanumeric_reward", "<answer>Hello-123!</answer>"): 0.0,
}


def load(folder: Path, name: str) -> list[dict]:
    return [
        json.loads(line) for line in (folder / "cases" / name).read_text().rstrip("\n").split("\n")
    ]


def ours(case: dict) -> bool:
    """Whether the case is about a reward of ours: NeMo RL's format gives part marks, TRL repeats
    over token ids.
    """
    if case["source"] == "NeMo-RL" and case["fn"] == "format_reward":
        return False
    if case["fn"] == "repetition_penalty_reward" and case.get("completion_ids") is not None:
        return False
    return case["fn"] in OUR_NAMES


def value_of(case: dict) -> float | None:
    fn = case["fn"]
    given = (case.get("config") or {}).get("kwargs") or {}
    params = {OUR_PARAMS.get(k, k): v for k, v in given.items() if k != "language"}
    if case["source"] == "trl" and fn == "cosine_scaled_reward":
        params = {**TRL_COSINE, **params}
    columns = {"solution": [case["gold"]]}
    if case.get("n_completion_ids") is not None:
        columns["completion_ids"] = [[1] * case["n_completion_ids"]]
    return rewards.get(OUR_NAMES[fn], **params)([case["completion"] or ""], **columns)[0]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("open_r1_reward_tests.jsonl", 43),
        ("trl_reward_tests.jsonl", 33),
        ("nemo_rl_tests.jsonl", 7),
    ],
)
def test_recorded_cases(shared_data: Path, name: str, count: int) -> None:
    cases = [case for case in load(shared_data, name) if ours(case)]
    for case in cases:
        expected = OURS.get((case["fn"], case["completion"]), case["expected"])
        value = value_of(case)
        assert value == (None if expected is None else pytest.approx(expected)), case
    assert len(cases) == count
