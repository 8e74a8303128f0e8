import pytest

from data import Arithmetic, DataError
from data.prompts import R1_SYSTEM, R1_ZERO, dress, worked

QUESTION = [{"role": "user", "content": "2 + 2?"}]
ANSWER = [{"role": "assistant", "content": "4"}]


def test_worked_is_the_format_of_the_reward():
    assert worked(" a\nb ", " 4 ") == "<think>a\nb</think>\n<answer>4</answer>"


def test_r1_puts_the_structure_into_a_system_prompt_and_keeps_the_question():
    row = dress({"prompt": QUESTION, "completion": ANSWER}, style="r1", system=None)
    assert row["prompt"] == [{"role": "system", "content": R1_SYSTEM}, *QUESTION]
    assert row["completion"] == ANSWER


def test_r1_zero_is_a_plain_string_that_leaves_the_opening_tag_to_the_model():
    row = dress({"prompt": QUESTION, "completion": ANSWER}, style="r1-zero", system=None)
    assert row["prompt"] == R1_ZERO.format(question="2 + 2?")
    assert row["prompt"].endswith("\nUser: 2 + 2?\nAssistant:\n")
    assert row["completion"] == "4"
    for prompt in (R1_SYSTEM, R1_ZERO):
        for tag in ("<think>", "</think>", "<answer>", "</answer>"):
            assert tag in prompt


def test_r1_zero_turns_a_chat_of_one_exchange_into_prompt_and_completion():
    system = [{"role": "system", "content": "s"}]
    row = dress({"messages": system + QUESTION + ANSWER}, style="r1-zero", system=None)
    assert row == {"prompt": R1_ZERO.format(question="2 + 2?"), "completion": "4"}


def test_r1_zero_refuses_a_dialogue():
    with pytest.raises(DataError, match="turns of user, assistant, user"):
        dress({"prompt": QUESTION + ANSWER + QUESTION}, style="r1-zero", system=None)


def test_system_none_keeps_text_replaces_and_empty_drops():
    own = {"prompt": [{"role": "system", "content": "own"}, *QUESTION]}
    assert dress(own, style="chat", system=None) == own
    given = dress(own, style="chat", system="mine")["prompt"]
    assert given == [{"role": "system", "content": "mine"}, *QUESTION]
    assert dress(own, style="chat", system="")["prompt"] == QUESTION


def test_a_system_prompt_beside_a_style_that_brings_its_own_is_refused():
    with pytest.raises(DataError, match="brings its own"):
        Arithmetic(style="r1", system="mine")


def test_every_row_of_a_source_takes_the_style():
    prompts = Arithmetic(size=5, style="r1-zero").rows()["prompt"]
    assert all(isinstance(each, str) for each in prompts)
    assert all(
        each[0]["content"] == "Be brief."
        for each in Arithmetic(size=5, system="Be brief.").rows()["prompt"]
    )
