"""How the sampler is asked: three ways, chats and plain text."""

from dataclasses import dataclass

import pytest

import data
from data.prompting import REFLECTION, RULE, FewShot, Plain, Reflect, ended
from data.rows import assistant, dataset, message, user

SYSTEM = message("system", "Be brief.")
CHAT = [SYSTEM, *user("What is 2 + 3?")]


@dataclass(frozen=True)
class Rows:
    """A source of these rows."""

    made: tuple
    name: str = "made"

    def rows(self):
        return dataset(list(self.made))


def _examples(*questions, plain=False):
    if plain:
        return Rows(tuple({"prompt": q, "completion": f"{q} worked"} for q in questions))
    return Rows(
        tuple({"prompt": user(q), "completion": assistant(f"{q} worked")} for q in questions)
    )


def test_plain_asks_as_it_is():
    assert Plain().ask(CHAT) is CHAT


def test_reflection_joins_the_system_prompt_or_stands_in_front():
    asked = Reflect().ask(CHAT)
    assert asked == [message("system", f"Be brief.\n\n{REFLECTION}"), CHAT[1]]
    assert Reflect(instruction="Think.").ask(user("?")) == [message("system", "Think."), *user("?")]
    assert Reflect(instruction="Think.").ask("2 + 3 =") == "Think.\n\n2 + 3 ="
    assert CHAT[0] == message("system", "Be brief.")


def test_examples_stand_between_the_system_prompt_and_the_question():
    asked = FewShot(examples=_examples("a", "b", "c"), count=2).ask(CHAT)
    assert asked[0] == SYSTEM and asked[-1] == CHAT[1] and len(asked) == 6
    assert [turn["role"] for turn in asked[1:5]] == ["user", "assistant"] * 2
    for question, answer in (asked[1:3], asked[3:5]):
        assert answer["content"] == f"{question['content']} worked"
    assert asked[1] != asked[3]
    data.validate.check_rows([{"prompt": asked}], "grpo")


def test_they_are_the_same_for_every_question_and_others_with_another_seed():
    source = _examples(*"abcdefghij")
    drawn = [FewShot(examples=source, count=3, seed=seed).ask(user("?"))[:-1] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert FewShot(examples=source, count=3).ask(user("!"))[:-1] == drawn[0]


def test_a_question_is_no_example_of_itself():
    few = FewShot(examples=_examples("a", "b", "c"), count=2)
    for question in "abc":
        asked = few.ask(user(question))
        shown = [turn["content"] for turn in asked[:-1:2]]
        assert len(shown) == 2 and question not in shown


def test_examples_of_plain_text_are_told_apart_by_a_rule():
    asked = FewShot(examples=_examples("a", "b", plain=True), count=1).ask("2 + 3 =")
    assert asked in (f"aa worked{RULE}2 + 3 =", f"bb worked{RULE}2 + 3 =")


def test_a_plain_answer_ends_where_the_model_goes_on_by_itself():
    assert ended(f"5{RULE}4 + 4 = 8") == "5\n"
    assert ended("5\nUser: and 4 + 4?\n---\n") == "5"
    assert ended("5 --- or so") == "5 --- or so"


def test_what_does_not_fit_is_said():
    with pytest.raises(data.DataError, match=r"3 worked examples are needed.*made has 2 rows"):
        FewShot(examples=_examples("a", "b"), count=2).ask(CHAT)
    with pytest.raises(data.DataError, match="both be chats or both be text"):
        FewShot(examples=_examples("a", "b", plain=True), count=1).ask(CHAT)
    with pytest.raises(data.DataError, match="count=0 must be at least 1"):
        FewShot(examples=_examples("a"), count=0)
