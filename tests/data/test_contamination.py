"""Training prompts found among evaluation prompts: whole ones, thirteen words, and no templates."""

import random

import pytest

import data
from data.contamination import Match, overlap, prompt_texts

WORDS = [*"abcdefghijklmn"]


def text(*words):
    return " ".join(words)


def test_thirteen_words_in_a_row_are_a_match_and_twelve_are_none():
    training = ["nothing of it", text("before", *WORDS[:13], "after")]
    found = overlap(training, [text("x", *WORDS[:13], "y"), text("x", *WORDS[:12], "y", "z")])
    assert found.matches == (Match(prompt=0, training=1, words=text(*WORDS[:13])),)
    assert (found.n, found.prompts, found.training, found.matched, found.share) == (
        13,
        2,
        2,
        1,
        0.5,
    )
    assert overlap(training, [text("x", *WORDS[:12], "y", "z")], n=12).matched == 1


def test_twelve_words_at_the_end_are_none_either():
    assert overlap([text("x", *WORDS[:12])], [text("y", *WORDS[:12])]).matched == 0


def test_case_punctuation_and_white_space_do_not_hide_a_match():
    shouted = "A, b?  c\nD -- e; f: “g” h. I (j) k! l 'm'"
    assert overlap([text(*WORDS)], [shouted]).matched == 1


def test_numbers_are_kept():
    prompt = "Tom has {} apples and gives Ann {} of them so how many apples are left".format
    assert overlap([prompt(30, 12)], [prompt(30, 12)]).matched == 1
    assert overlap([prompt(30, 12)], [prompt(31, 13)]).matched == 0
    assert overlap([prompt("1,450", 3.5)], [prompt("1,450", 3.6)]).matched == 0
    assert overlap(["Add 3.5 and 1"], ["Add 3, 5 and 1", "add 3.5 and 1."]).matched == 1


def test_short_prompts_are_compared_whole_with_their_signs():
    training = ["Compute 12 + 7 * 3.", "What is 2 + 2"]
    found = overlap(training, ["compute 12 + 7 * 3", "Compute 12 * 7 + 3.", "Compute 12 + 7"])
    assert found.matches == (Match(prompt=0, training=0, words="compute 12 + 7 * 3"),)


def test_a_template_is_no_match_and_a_whole_prompt_always_is():
    random.seed(0)
    template = (
        "Using the numbers {}, {} and {}, write an expression that equals {}. You may use + - * / "
        "and brackets, and each number at most once."
    )
    draws = [[*random.sample(range(1, 50), 3), random.randint(1, 9)] for _ in range(60)]
    prompts = [template.format(*draw) for draw in draws]
    found = overlap(prompts[:40], prompts[39:])
    assert [match.prompt for match in found.matches] == [0]
    assert found.matches[0].training == 39
    # Of few prompts nothing is a template.
    assert overlap(prompts[:3], [template.format(1, 2, 3, draws[0][3])]).matched == 1


def test_a_prompt_repeated_in_training_is_no_template():
    """An epoch, a sampled group or a mixture repeats a prompt; it is one prompt all the same."""
    asked = text(*WORDS)
    framed = "Problem: " + asked
    assert overlap([framed] * 12, [asked]).matched == 1
    assert overlap([framed], [asked + " now"] * 12).matched == 12
    # Eleven different ones are a template.
    assert overlap([f"Problem {'x' * i}: " + asked for i in range(11)], [asked]).matched == 0


def test_chinese_is_counted_by_characters():
    asked = "一个袋子里有十二个苹果，拿走五个，还剩几个？"
    assert overlap(["请回答下面的问题。" + asked + "谢谢。"], [asked]).matched == 1
    assert overlap(["请回答：" + asked[:12]], [asked]).matched == 0


def test_the_first_training_prompt_is_named_and_a_prompt_counts_once():
    long = text(*WORDS, *WORDS[::-1])
    found = overlap([text(*WORDS[1:]), long, long], [long, "x"])
    assert found.matches == (Match(prompt=0, training=1, words=long),)
    assert overlap([], ["x"]).matched == overlap(["", "x"], [""]).matched == 0
    with pytest.raises(ValueError, match="n=0"):
        overlap(["x"], ["x"], n=0)


def test_what_is_asked_is_compared_whatever_frame_it_stands_in():
    fields = {"size": 6, "seed": 3}
    asked = [list(prompt_texts(data.Arithmetic(style=s, **fields).rows())) for s in ("chat", "r1")]
    asked.append(list(prompt_texts(data.Arithmetic(style="r1-zero", **fields).rows())))
    assert asked[0] == asked[1] == asked[2]
    assert asked[0][0].startswith("Compute ")
    chat = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    row = {"prompt": None, "messages": [*chat, {"role": "user", "content": "C"}]}
    assert list(prompt_texts([row])) == ["A\nC"]


def test_generated_train_and_test_do_not_overlap():
    train, test = (data.Arithmetic(size=150, split=split).rows() for split in ("train", "test"))
    assert overlap(prompt_texts(train), list(prompt_texts(test))).matched == 0


def test_gsm8k_test_has_no_whole_prompt_of_train(shared_data):
    train, test = (
        list(prompt_texts(data.resolve(str(shared_data / "gsm8k" / f"{name}.jsonl")).rows()))
        for name in ("train", "test")
    )
    found = overlap(train, test)
    # A handful of near twins: the two films, the train of 1,200 miles, the stamps.
    assert found.matched == 3
    assert all(test[match.prompt] != train[match.training] for match in found.matches)
    assert overlap([*train, test[7]], test).matched == 4
