"""Reinforcement learning on mixed prompts: mathematics with golds, chat without."""

import pytest

import data
from align.config import Grpo
from align.stages.checks import check_reward, checked_rows
from rewards import Accuracy, Format, WeightedSum, Where

MIXED = data.Mixture(
    sources=((1.0, data.Arithmetic(size=40)), (1.0, data.Everyday(use="prompts"))),
    origin="source",
)
GATED = Where(reward=Accuracy(), column="source", equals=("arithmetic",))


def polite(completions, **columns):
    return [float("please" in each[0]["content"]) for each in completions]


def config(reward, source=MIXED):
    return Grpo(model="x", data=source, reward=reward, prompts=4, samples=2)


def mixed(accuracy):
    chat = Where(reward=polite, equals=("general", "decline"))
    return WeightedSum(((1.0, accuracy), (0.5, chat), (0.1, Format())))


def test_gated_rewards_pass_every_check_before_the_first_step():
    asked = config(mixed(GATED))
    rows = checked_rows(asked)
    assert {(row["source"], row["kind"], row["solution"] is None) for row in rows} == {
        ("arithmetic", None, False),
        ("everyday", "general", True),
        ("everyday", "decline", True),
    }
    check_reward(asked, rows)


def test_accuracy_without_a_gate_names_the_row_without_a_gold():
    with pytest.raises(data.RowError, match=r"2nd row, column 'solution'.*rewards\.Where"):
        checked_rows(config(mixed(Accuracy())))


def test_a_gate_does_not_hide_golds_that_the_reward_refuses():
    deaf = Where(reward=Format(), column="source", equals=("arithmetic",))
    asked = config(mixed(deaf))
    check_reward(asked, checked_rows(asked))  # judges no correctness, so there is nothing to ask
    wrong = MIXED.rows().map(lambda row: {"solution": row["solution"] and "<answer>"})
    with pytest.raises(data.RewardCheckError, match=r"gold answer .* cannot be read"):
        check_reward(config(mixed(GATED)), wrong)


def test_chat_alone_needs_no_gold():
    asked = config(polite, data.Everyday(use="prompts", size=20))
    rows = checked_rows(asked)
    assert set(rows["solution"]) == {None}
    check_reward(asked, rows)
