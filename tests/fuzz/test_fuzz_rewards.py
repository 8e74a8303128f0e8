"""Rewards on whatever comes: a finite number or None for every completion, or an error that says
what was wrong.
"""

import made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rewards
from align.stages.rolled import RewardError, judged
from rewards.core import check_scores

QUICK = tuple(
    rewards.get(name, **({"max_len": 20, "cache": 5} if name == "soft_overlong" else {}))
    for name in rewards.names()
    if name not in ("accuracy", "cosine")
)
SUM = rewards.WeightedSum([(1.0 - i, reward) for i, reward in enumerate(QUICK)])
completions = made.mostly(st.one_of(made.texts, made.chats))


@settings(max_examples=3_000)
@given(
    st.lists(completions, min_size=1, max_size=4),
    made.mostly(st.none(), st.one_of(made.values, st.lists(st.lists(st.integers()), max_size=4))),
)
def test_rewards_of_text(asked, ids):
    for reward in (*QUICK, SUM):
        columns = {} if ids is None else {"completion_ids": ids}
        try:
            scores = reward.score(asked, **columns)
        except (TypeError, ValueError) as error:
            assert str(error)
            continue
        check_scores(scores, asked, reward=reward.name)
        assert [score.value for score in scores] == reward(asked, **columns)


@settings(max_examples=200)
@given(st.lists(st.tuples(made.texts, made.mostly(made.texts)), min_size=1, max_size=12))
def test_accuracy(pairs):
    reward = rewards.get("accuracy", seconds=0.5, memory_mb=256)
    texts, golds = [text for text, _ in pairs], [gold for _, gold in pairs]
    scores = reward.score(texts, solution=golds)
    check_scores(scores, texts, reward=reward.name)
    for score, gold in zip(scores, golds, strict=True):
        assert (score.value is None) == (gold is None)
        assert score.correct in (None, 0.0, 1.0)


numbers = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.sampled_from([10**400, "1", b"1", [1]])
)


@settings(max_examples=2_000)
@given(st.one_of(made.values, st.lists(numbers, max_size=4)), st.integers(1, 3))
def test_what_a_function_returns(returned, count):
    reward = rewards.from_trl(lambda completions, **_: returned)
    try:
        scores = judged(reward, ["a"] * count, [[0]] * count, [{"prompt": "q"}] * count, [])
    except RewardError as error:
        assert "the reward <lambda>" in str(error)
        finite = [type(value) in (int, float, bool) for value in _list(returned)]
        bad = len(finite) != count or not all(finite)
        largest = rewards.core.LARGEST
        assert bad or any(abs(value) > largest or value != value for value in _list(returned))
        return
    assert len(scores) == count == len(returned)
    for score in scores:
        assert score.value is None or abs(score.value) < float("inf")


def _list(returned):
    return returned if isinstance(returned, list) else []


def test_a_completion_that_is_none_is_said():
    with pytest.raises(TypeError, match="a completion must be a string or a list of messages"):
        QUICK[0]([3])
