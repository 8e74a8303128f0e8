import re
from dataclasses import dataclass

import pytest

from data import Arithmetic, DataError, RewardCheckError
from data.validate import check_reward


@dataclass(frozen=True)
class Verdict:
    correct: float | None


class Exact:
    """Correct where the text inside <answer> is the solution."""

    def score(self, completions, *, solution, prompts, **columns):
        assert len(completions) == len(solution) == len(prompts)
        return [
            Verdict(self.judge(text, gold))
            for text, gold in zip(map(self.text, completions), solution, strict=True)
        ]

    def __call__(self, completions, **columns):
        return [score.correct for score in self.score(completions, **columns)]

    def text(self, completion):
        return completion if isinstance(completion, str) else completion[0]["content"]

    def judge(self, text, gold):
        found = re.search(r"<answer>(.*)</answer>", text)
        return float(found is not None and found[1] == gold)


class Deaf(Exact):
    def judge(self, text, gold):
        return 0.0


class Generous(Exact):
    def judge(self, text, gold):
        return 1.0


class LikesAnyAnswer(Exact):
    def judge(self, text, gold):
        return float(re.search(r"<answer>.+</answer>", text) is not None)


class LikesSilence(Exact):
    def judge(self, text, gold):
        return 1.0 if text == "" else super().judge(text, gold)


class FormatAlone(Exact):
    def judge(self, text, gold):
        return None


class RefusesSeven(Exact):
    def judge(self, text, gold):
        return 0.0 if gold == "7" else super().judge(text, gold)


ROWS = [
    {"prompt": [{"role": "user", "content": f"q{index}"}], "solution": str(index)}
    for index in range(50)
]


@pytest.mark.parametrize("style", ["chat", "r1-zero"])
def test_a_reward_that_knows_right_from_wrong_passes(style):
    found = check_reward(Arithmetic(size=100, style=style).rows(), Exact())
    assert (found.gold, found.empty, found.shuffled, found.offending) == (1.0, 0.0, 0.0, None)
    assert 33 <= found.rows <= 64


def test_a_plain_trl_function_is_judged_by_its_value():
    def accuracy(completions, solution, **columns):
        return Exact()(completions, solution=solution, **columns)

    assert check_reward(ROWS, accuracy).gold == 1.0
    with pytest.raises(RewardCheckError, match="row 0: the reward does not judge the gold"):
        check_reward(ROWS, lambda completions, **columns: [0.5] * len(completions))


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (Deaf(), r"row 0: the reward does not judge the gold answer correct.*50 of 50"),
        (RefusesSeven(), r"row 7: .*'7'.*1 of 50"),
        (Generous(), r"row 0: the reward judges an empty answer correct"),
        (LikesSilence(), r"an empty answer correct"),
        (LikesAnyAnswer(), r"row 0: the reward judges other rows' answers correct"),
    ],
)
def test_a_reward_that_does_not_is_refused_with_the_first_row(reward, said):
    with pytest.raises(RewardCheckError, match=said):
        check_reward(ROWS, reward)


def test_a_share_of_golds_may_be_tolerated_and_the_first_is_named():
    found = check_reward(ROWS, RefusesSeven(), tolerance=0.02)
    assert (found.gold, found.offending) == (0.98, 7)
    with pytest.raises(RewardCheckError):
        check_reward(ROWS, RefusesSeven(), tolerance=0.019)


def test_a_reward_that_judges_no_correctness_is_not_asked_further():
    found = check_reward(ROWS, FormatAlone())
    assert (found.gold, found.empty, found.shuffled) == (None, None, None)


def test_golds_equal_in_value_are_no_offence():
    class ByValue(Exact):
        def judge(self, text, gold):
            found = re.search(r"<answer>(.+)</answer>", text)
            return float(found is not None and float(found[1]) == float(gold))

    rows = [{"prompt": "q", "solution": text} for text in ("1", "1.0", "2", "3")]
    assert check_reward(rows, ByValue()).shuffled == 0.0


def test_the_sample_spreads_over_the_rows():
    rows = [*ROWS[:40], {"prompt": "q", "solution": None}, *ROWS[40:]]
    found = check_reward(rows, Exact(), sample=10)
    assert found.rows <= 10
    with pytest.raises(RewardCheckError, match=r"row 40: .*1 of 5 rows"):
        check_reward(
            [*ROWS[10:], *[{"prompt": "q", "solution": "7"}] * 10], RefusesSeven(), sample=5
        )


def test_the_recipes_own_format_is_used():
    class Hashes(Exact):
        def judge(self, text, gold):
            return float(text == f"so #### {gold}")

    assert check_reward(ROWS, Hashes(), gold_format="so #### {solution}").gold == 1.0
    with pytest.raises(RewardCheckError):
        check_reward(ROWS, Hashes())


def test_rows_without_solutions_cannot_be_checked():
    with pytest.raises(DataError, match="no row has a solution"):
        check_reward([{"prompt": "q"}], Exact())
