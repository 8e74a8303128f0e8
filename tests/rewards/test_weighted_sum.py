"""Weighted sums: the specification's numbers, parts, correctness, plain functions as terms."""

import pytest

import rewards
from rewards import Accuracy, Cosine, Format, LanguageConsistency, Repetition, WeightedSum


def test_accuracy_and_format() -> None:
    completions = [
        "<think>a</think><answer>3</answer>",
        "<think>a</think><answer>4</answer>",
        "4",
        "<think>a</think><answer>3</answer>",
    ]
    reward = WeightedSum(terms=((1.0, Accuracy()), (0.1, Format())))
    scores = reward.score(completions, solution=["4"] * 4)
    assert [s.value for s in scores] == pytest.approx([0.1, 1.1, 1.0, 0.1])
    assert [s.correct for s in scores] == [0.0, 1.0, 1.0, 0.0]
    assert scores[0].parts == {"accuracy": 0.0, "format": 1.0}


def test_accuracy_and_language() -> None:
    reward = WeightedSum(((1.0, Accuracy()), (0.2, LanguageConsistency())))
    texts = ["<think>We add.</think><answer>3</answer>", "<think>We add.</think><answer>4</answer>"]
    assert reward(texts, solution=["4", "4"]) == pytest.approx([0.2, 1.2])


def test_a_part_that_does_not_apply_counts_nothing() -> None:
    reward = WeightedSum(((1.0, Accuracy()), (0.5, Format())))
    (score,) = reward.score(["<think>a</think><answer>3</answer>"], solution=[None])
    assert (score.value, score.correct) == (0.5, None)
    assert score.parts == {"accuracy": None, "format": 1.0}
    assert WeightedSum(((1.0, Accuracy()),))(["4"], solution=[None]) == [None]


def test_correct_comes_from_the_first_term_that_judges() -> None:
    reward = WeightedSum(((1.0, Format()), (1.0, Cosine()), (1.0, Accuracy())))
    (score,) = reward.score(["#### 4"], solution=["4"])
    assert score.correct == 1.0
    (score,) = reward.score(["#### 4"], solution=["forty two"])
    assert (score.correct, score.outcome) == (None, "unscorable")


def test_terms_of_one_name_and_nested_sums_keep_their_parts() -> None:
    inner = WeightedSum(((1.0, Format()),))
    reward = WeightedSum(((1.0, inner), (1.0, Repetition()), (1.0, Repetition(n=1))))
    (score,) = reward.score(["a a a a"])
    assert list(score.parts) == ["format", "repetition", "repetition_2"]
    assert score.value == pytest.approx(-0.1 * (1 - 1 / 2) - 0.1 * (1 - 1 / 4))


def shouting(completions: list[str], **columns: object) -> list[float | None]:
    return [None if not c else float(c.isupper()) for c in completions]


def test_a_plain_function_is_a_term() -> None:
    reward = WeightedSum(((2.0, shouting), (1.0, Format())))
    scores = reward.score(["YES", "no", ""])
    assert [s.value for s in scores] == [2.0, 0.0, 0.0]
    assert [s.parts["shouting"] for s in scores] == [1.0, 0.0, None]


def test_wrong_terms_are_explained() -> None:
    with pytest.raises(ValueError, match="needs terms"):
        WeightedSum(())
    with pytest.raises(TypeError, match=r"rewards.get\(name\) makes one from a name"):
        WeightedSum(((1.0, "accuracy"),))
    with pytest.raises(TypeError, match=r"pair \(weight, reward\)"):
        WeightedSum((Accuracy(),))


def test_it_is_a_reward_with_a_name() -> None:
    reward = WeightedSum(((1.0, Format()),))
    assert isinstance(reward, rewards.Reward)
    assert reward.__name__ == "weighted_sum"
    assert reward == WeightedSum(((1.0, Format()),))
