"""Golds that do not belong to their prompts, as far as the rows tell."""

import pytest

from data.gold_check import check_golds
from data.reward_scores import RewardCheckError


def rows(gold, *, count=20, own=None, asked=lambda i: f"{i} plus {i}?"):
    made = []
    for i in range(count):
        row = {"prompt": [{"role": "user", "content": asked(i)}], "solution": gold(i)}
        if own is not None:
            row["completion"] = [{"role": "assistant", "content": f"The answer is {own(i)}"}]
        made.append(row)
    return made


@pytest.mark.parametrize("gold", [lambda i: str((i + 1) % 20), lambda i: str((i * 7 + 3) % 20)])
def test_golds_of_other_rows_are_told_by_the_rows_own_answers(gold):
    with pytest.raises(RewardCheckError, match=r"are those of other rows.*shifted or shuffled"):
        check_golds(rows(gold, own=str))


def test_golds_that_all_stand_for_nothing():
    with pytest.raises(RewardCheckError, match=r"1st row: the gold 'None' stands for no answer"):
        check_golds(rows(lambda i: "None"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (rows(str, own=str), []),
        (rows(str, own=lambda i: i if i < 15 else 99 - i), []),  # a few wrong ones
        (rows(str, own=lambda i: 1000 + i), []),  # of another kind
        (rows(lambda i: "none" if i % 3 else "some"), []),
        (rows(lambda i: "yes" if i % 2 else "no", own=lambda i: "no" if i % 2 else "yes"), []),
        (rows(lambda i: "ABCD"[i % 4], own=lambda i: "ABCD"[(i + i // 4) % 4]), []),
        (rows(lambda i: str(i // 2), own=lambda i: str((i if i % 3 else i + 2) % 20 // 2)), []),
        (rows(lambda i: "42", count=7), []),
        (rows(lambda i: "N/A" if i == 3 else str(i)), ["4th row: the gold 'N/A'"]),
        (rows(str, asked=lambda i: f"{i % 18}?"), ["2 prompts stand there with different golds"]),
        (rows(lambda i: ("\\frac12", "\\frac{1}{2}")[i % 2], asked=lambda i: "Half?"), []),
        (rows(lambda i: str(i % 18), asked=lambda i: f"{i % 18}?"), []),
    ],
)
def test_what_is_doubted_of_golds(made, said):
    found = check_golds(made)
    assert len(found) == len(said)
    for doubt, words in zip(found, said, strict=True):
        assert words in doubt
