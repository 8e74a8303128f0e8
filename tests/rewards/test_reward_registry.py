"""Rewards by name: names, defaults, and answers to typos."""

import dataclasses

import pytest

import rewards

DEFAULTS = {
    "accuracy": {"unparseable": 0.5},
    "format": {},
    "reasoning_steps": {"target": 3},
    "cosine": {
        "max_len": 1000,
        "min_value_wrong": -0.5,
        "max_value_wrong": -0.1,
        "min_value_correct": 0.8,
        "max_value_correct": 1.0,
    },
    "repetition": {"n": 3, "max_penalty": -0.1},
    "language_consistency": {"language": "en"},
    "soft_overlong": {},
}


def test_names() -> None:
    assert rewards.names() == tuple(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_get_and_defaults(name: str) -> None:
    required = {"max_len": 100, "cache": 20} if name == "soft_overlong" else {}
    reward = rewards.get(name, **required)
    values = dataclasses.asdict(reward)
    assert {key: values[key] for key in DEFAULTS[name]} == DEFAULTS[name]
    assert reward.__name__ == reward.name == name
    assert type(reward).__name__ in rewards.__all__
    assert reward == rewards.get(name, **required) and hash(reward) is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        reward.name_of_nothing = 1


def test_typos_are_answered() -> None:
    with pytest.raises(ValueError, match=r"'acuracy'; did you mean 'accuracy'\? The.*overlong"):
        rewards.get("acuracy")
    with pytest.raises(TypeError, match=r"no parameter 'max_length'; did you mean 'max_len'"):
        rewards.get("cosine", max_length=3)
    with pytest.raises(TypeError, match=r'needs cache: rewards.get\("soft_overlong", cache=...'):
        rewards.get("soft_overlong", max_len=10)
    with pytest.raises(TypeError, match="Its parameters are: none"):
        rewards.get("format", strict=True)
