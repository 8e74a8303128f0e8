import re
from dataclasses import dataclass

import pytest

import rewards
from data import Arithmetic, DataError, RewardCheckError
from data.validate import check_reward


@dataclass(frozen=True)
class Verdict:
    correct: float | None
    outcome: str = "ok"


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
    with pytest.raises(RewardCheckError, match="1st row: the reward does not judge the gold"):
        check_reward(ROWS, lambda completions, **columns: [0.5] * len(completions))


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (Deaf(), r"1st row: the reward does not judge the gold answer correct.*50 of 50"),
        (RefusesSeven(), r"8th row: .*'7'.*1 of 50"),
        (Generous(), r"1st row: the reward judges an empty answer correct"),
        (LikesSilence(), r"an empty answer correct"),
        (LikesAnyAnswer(), r"1st row: the reward judges other rows' answers correct"),
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


def test_of_a_few_rows_one_gold_may_be_bad_where_a_share_may():
    assert check_reward(ROWS[4:8], RefusesSeven(), tolerance=0.05).gold == 0.75
    for rows, tolerance in ((ROWS[4:8], 0.0), (ROWS[7:8], 0.05)):
        with pytest.raises(RewardCheckError):
            check_reward(rows, RefusesSeven(), tolerance=tolerance)


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


def test_the_sample_is_drawn_from_all_rows_with_a_solution_and_is_always_the_same():
    rows = [*ROWS[:40], {"prompt": "q", "solution": None}, *ROWS[40:]]
    assert check_reward(rows, Exact(), sample=10).rows == 10
    assert check_reward(rows, Exact(), sample=100).rows == 50
    last = [*ROWS[10:], *[{"prompt": "q", "solution": "7"}] * 40]
    said = set()
    for _ in range(2):
        with pytest.raises(RewardCheckError, match=r"^(4|5|6|7)\d\w\w row: .* of 8 rows") as error:
            check_reward(last, RefusesSeven(), sample=8)
        said.add(str(error.value))
    assert len(said) == 1


def mixed(count):
    """Every second row mathematics, as an even mixture has it; the others have golds of words."""
    return [
        row
        | {"kind": ("math", "general")[index % 2], "solution": (row["solution"], "x")[index % 2]}
        for index, row in enumerate(ROWS * (count // len(ROWS)))
    ]


@pytest.mark.parametrize("first", [0, 1])
def test_rows_that_a_gate_leaves_out_are_not_asked(first):
    gated = rewards.Where(reward=rewards.Accuracy(), equals=("math",))
    found = check_reward(mixed(200)[first:], gated)
    assert (found.gold, found.empty, found.shuffled) == (1.0, 0.0, 0.0)
    assert 16 < found.rows < 48


@pytest.mark.parametrize("first", [0, 1])
def test_a_gate_hides_no_reward_that_knows_nothing(first):
    """However the kinds alternate: an even stride would see one of them alone."""
    deaf = rewards.Where(reward=lambda completions, **columns: [0.0] * len(completions),
                         equals=("math",))  # fmt: skip
    with pytest.raises(RewardCheckError, match="does not judge the gold answer correct"):
        check_reward(mixed(250)[first : first + 200], deaf.__call__, sample=50)


def test_a_gold_that_cannot_be_read_is_refused_not_left_out():
    class CannotRead(Exact):
        def score(self, completions, *, solution, **columns):
            found = super().score(completions, solution=solution, **columns)
            return [
                Verdict(None, "unscorable") if gold == "7" else each
                for gold, each in zip(solution, found, strict=True)
            ]

    with pytest.raises(RewardCheckError, match=r"8th row: .*1 of 50 rows"):
        check_reward(ROWS, CannotRead())


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
