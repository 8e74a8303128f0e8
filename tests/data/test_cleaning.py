"""Free answers in the common format."""

import pytest

import rewards
from data.cleaning import Unclean, clean
from rewards.format import follows_format

CLEANED = [
    # The format already: only the space between is made one line.
    ("<think>2+3=5</think> <answer>5</answer>", "2+3=5", "5"),
    # No tags at all, as of an instruct model.
    ("2 + 3 = 5. The answer is 5.", "2 + 3 = 5. The answer is 5.", "5"),
    ("We add: \\boxed{5}", "We add: \\boxed{5}", "5"),
    ("so 2+3=5\n#### 5", "so 2+3=5\n#### 5", "5"),
    # Half of the tags.
    ("2+3=5 so\n</think>\n<answer>5</answer>", "2+3=5 so", "5"),
    ("<think>2+3=5 <answer>5</answer>", "2+3=5", "5"),
    ("<think>2+3=5</think> The sum is 5.", "2+3=5", "5"),
    ("2+3=5\n<answer>5", "2+3=5", "5"),
    # Too many, in capitals, and talk around them.
    ("Sure! <think>a <think>b</think> So <answer>5</answer> bye", "a  b", "5"),
    ("<THINK>2+3=5</THINK><ANSWER>5</ANSWER>", "2+3=5", "5"),
    ("<think><thought>2+3=5</thought></think><answer>5</answer>", "2+3=5", "5"),
    # The last answer counts; two boxes side by side are one answer.
    ("<think>4? no</think><answer>4</answer><answer>5</answer>", "4? no", "5"),
    ("x is \\boxed{2} and \\boxed{3}", "x is \\boxed{2} and \\boxed{3}", "2, 3"),
]


@pytest.mark.parametrize(("text", "thinking", "answer"), CLEANED)
def test_reasoning_and_last_answer_are_taken_out(text, thinking, answer):
    cleaned = clean(text)
    assert cleaned == f"<think>{thinking}</think>\n<answer>{answer}</answer>"
    assert follows_format(cleaned)
    assert clean(cleaned) == cleaned
    # What the accuracy reward reads stays the same.
    assert rewards.Accuracy()([text, cleaned], solution=[answer] * 2) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no answer"),
        ("I do not know", "no answer"),
        ("<think>2+3=5</think>", "no answer"),
        ("5", "no reasoning"),
        ("#### 5", "no reasoning"),
        ("The answer is 5.", "no reasoning"),
        ("<answer>5</answer>", "no reasoning"),
        ("<think></think><answer>5</answer>", "no reasoning"),
        ("<think>  5 </think><answer>5</answer>", "no reasoning"),
    ],
)
def test_what_cannot_be_cleaned_says_why(text, reason):
    with pytest.raises(Unclean, match=reason):
        clean(text)
