"""Format, reasoning steps, cosine, repetition, language consistency, soft overlong: the golden
numbers and their traps.
"""

import math

import pytest

import rewards


def one(name: str, text: str, **params: object) -> float | None:
    return rewards.get(name, **params)([text])[0]


GOOD = "<think>\nSome reasoning\n</think>\n<answer>\nThe answer\n</answer>"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (GOOD, 1.0),
        (f"\n  {GOOD} \n", 1.0),
        ("<think>a</think><answer>b</answer>", 1.0),
        (f"{GOOD}\nand a tail", 0.0),  # the MULTILINE trap
        (f"a head\n{GOOD}", 0.0),
        (f"{GOOD}\n{GOOD}", 0.0),
        ("<think>a</think> in between <answer>b</answer>", 0.0),
        ("<think>a</think><think>b</think><answer>c</answer>", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>Only thinking</think>", 0.0),
        ("<think>Wrong order</answer><answer>Wrong order</think>", 0.0),
        ("<THINK>a</THINK><answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_format(text: str, value: float) -> None:
    assert one("format", text) == value


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1: First step\nStep 2: Second step\nStep 3: Third step", 3),
        ("First, we do this.\nSecond, we do that.\nFinally, we conclude.", 3),
        ("First, a. Next, b. Finally, c.", 3),
        ("1. add\n2. multiply", 2),
        ("- add\n* multiply", 2),
        ("1. First, add", 1),  # one step, not a number and a word
        ("- **Step 1:** add\n- **Step 2:** multiply", 2),
        ("步骤1：加\n步骤2：乘", 2),
        ("第一，我们加。第二，我们乘。", 2),
        ("下一步，乘。最后，得到结果。", 2),
        ("Just plain text without any clear steps", 0),
        ("It took 3.5 hours, the second time -5 and\n3.5 more", 0),
        ("Go back to Step 1 and the first, best way", 0),
        ("", 0),
    ],
)
def test_reasoning_steps(text: str, steps: int) -> None:
    assert one("reasoning_steps", text) == pytest.approx(min(1.0, steps / 3))


def test_reasoning_steps_target() -> None:
    assert one("reasoning_steps", "1. a\n2. b", target=4) == 0.5
    with pytest.raises(ValueError, match="target must be at least 1"):
        rewards.get("reasoning_steps", target=0)


@pytest.mark.parametrize(
    ("answer", "tokens", "value"),
    [
        ("4", 0, 1.0),
        ("4", 1000, 0.8),
        ("4", 500, 0.9),
        ("4", 250, 0.8 + 0.1 * (1 + math.cos(math.pi / 4))),
        ("4", 1500, 0.8),  # the length is clamped
        ("5", 0, -0.5),
        ("5", 1000, -0.1),
        ("5", 500, -0.3),
        ("5", 250, -0.1 - 0.2 * (1 + math.cos(math.pi / 4))),
        ("5", 1500, -0.1),
    ],
)
def test_cosine_counts_tokens(answer: str, tokens: int, value: float) -> None:
    completion_ids = [[1] * tokens]
    (score,) = rewards.get("cosine").score(
        [f"<answer>{answer}</answer>"], solution=["4"], completion_ids=completion_ids
    )
    assert score.value == pytest.approx(value)
    assert score.correct == float(answer == "4")


def test_cosine_counts_characters_without_ids() -> None:
    text = "<answer>4</answer>".ljust(50)
    assert rewards.get("cosine", max_len=100)([text], solution=["4"]) == [pytest.approx(0.9)]


def test_cosine_of_an_unparseable_gold_does_not_apply() -> None:
    (score,) = rewards.get("cosine").score(["\\boxed{42}"], solution=["forty two"])
    assert (score.value, score.correct, score.outcome) == (None, None, "unscorable")


def test_cosine_refuses_swapped_bounds() -> None:
    with pytest.raises(ValueError, match="swap them"):
        rewards.get("cosine", min_value_wrong=-0.1, max_value_wrong=-0.5)


@pytest.mark.parametrize(
    ("text", "n", "penalty", "value"),
    [
        ("this is a this is a test", 3, -2.0, -0.4),
        ("this this this this this", 2, -1.0, -0.75),
        ("A B C A B C E F G A B C A B C", 3, -1.0, -5 / 13),
        ("this IS a THIS is", 2, -1.0, -0.25),  # case does not matter
        ("test test test test", 3, -0.5, -0.25),
        ("two words", 3, -1.0, 0.0),
        ("", 2, -1.0, 0.0),
        ("我们我们我们", 2, -1.0, -3 / 5),  # five pairs of characters, two of them distinct
        ("ありがとうありがとう", 3, -1.0, -3 / 8),
        ("하나 둘 하나 둘", 2, -1.0, -2 / 5),
        ("我们算 我们算", 3, -1.0, -1 / 4),  # white space is no character
    ],
)
def test_repetition(text: str, n: int, penalty: float, value: float) -> None:
    assert one("repetition", text, n=n, max_penalty=penalty) == pytest.approx(value)


def test_repetition_never_returns_minus_zero() -> None:
    assert math.copysign(1, one("repetition", "all words differ here")) == 1


def test_repetition_refuses_to_reward() -> None:
    with pytest.raises(ValueError, match=r"did you mean max_penalty=-0.1"):
        rewards.get("repetition", max_penalty=0.1)


@pytest.mark.parametrize(
    ("text", "language", "value"),
    [
        ("<think>We add.</think><answer>4</answer>", "en", 1.0),
        ("<think>我们加。</think><answer>four</answer>", "en", 0.0),
        ("<think>我们 ab</think><answer>x</answer>", "en", 0.5),
        ("<think>我们 ab</think><answer>x</answer>", "zh", 0.5),
        ("<think>we never close 我", "en", 12 / 13),
        ("no tags 我们", "en", 6 / 8),
        ("<think>2 + 3 = 5</think><answer>五</answer>", "en", 1.0),  # formulas are any language's
        ("<think>7 * 3 = 21\n12 + 21 = 33</think>\n<answer>33</answer>", "zh", 1.0),
        ("<think>7 * 3 = 21 因此</think>", "en", 0.0),
        ("<think></think><answer>words of the answer do not count</answer>", "en", 0.0),
        ("<think> … </think>", "en", 0.0),
        ("", "en", 0.0),
        ("<think>ещё</think>", "ru", 1.0),
        ("<think>ひらがなと漢字</think>", "ja", 1.0),
        ("<think>Ça déjà</think>", "fr", 1.0),
    ],
)
def test_language_consistency(text: str, language: str, value: float) -> None:
    assert one("language_consistency", text, language=language) == pytest.approx(value)


def test_language_without_a_known_script() -> None:
    with pytest.raises(ValueError, match="known: ar, bg"):
        rewards.get("language_consistency", language="klingon")


@pytest.mark.parametrize(
    ("tokens", "value"), [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (110, -1.0)]
)
def test_soft_overlong(tokens: int, value: float) -> None:
    reward = rewards.get("soft_overlong", max_len=100, cache=20)
    assert reward(["x"], completion_ids=[[1] * tokens]) == [pytest.approx(value)]
    assert reward(["x" * tokens]) == [pytest.approx(value)]  # characters without ids


def test_soft_overlong_without_a_cache_is_a_step() -> None:
    reward = rewards.get("soft_overlong", max_len=3, cache=0)
    assert reward(["xxx", "xxxx"]) == [0.0, -1.0]
    with pytest.raises(ValueError, match="cache=4, max_len=3"):
        rewards.get("soft_overlong", max_len=3, cache=4)
