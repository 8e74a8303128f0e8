"""Chats, templates and tokenizers that train the wrong thing or nothing are refused."""

import pytest
from test_chat import ANSWER, CHATML, QUESTION, STOP, tiny, trained

from align import models
from data import chat

SYSTEM = {"role": "system", "content": "s"}

FAILING = {
    "by its own word": "{{ raise_exception('no system role here') }}",
    "for want of a name": "{{ messages[0].name.first }}",
    "in arithmetic": "{{ 1 // 0 }}",
    "on a type": "{{ messages + 1 }}",
    "by its syntax": "{% for m in messages %}{{ m",
    "out of bounds": "{{ messages[99]['role']['x'] }}",
    "by a filter that is none": "{{ messages | nonsense }}",
    "in a loop too long": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "by what the sandbox forbids": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
}


@pytest.mark.parametrize("name", FAILING)
def test_a_template_that_fails_is_said(name):
    tokenizer = tiny(FAILING[name] + CHATML)
    for call in (
        lambda: chat.prompt_ids(tokenizer, QUESTION),
        lambda: chat.render(tokenizer, {"messages": QUESTION + ANSWER}),
        lambda: chat.stop_ids(tokenizer),
    ):
        with pytest.raises(chat.RenderError, match="the chat template fails on a chat of user"):
            call()


REWRITING = {
    "by counting": CHATML.replace("{% for m", "{{ messages|length }}{% for m", 1),
    "by cutting the past": CHATML.replace("in messages", "in messages[-2:]"),
    "by a system prompt of its own": CHATML.replace(
        "{% for m", "{% if not add_generation_prompt %}S{% endif %}{% for m", 1
    ),
    "by changing a text": CHATML.replace(
        "m['content']", "(m['content'] if loop.last else m['content']|replace('2', '3'))"
    ),
    "by turning it round": CHATML.replace("in messages", "in messages|reverse"),
}


@pytest.mark.parametrize("name", REWRITING)
def test_a_template_that_rewrites_history_is_refused(name):
    row = {"prompt": [SYSTEM, *QUESTION], "completion": ANSWER}
    with pytest.raises(chat.RenderError, match=r"renders the prompt differently|rewrites"):
        chat.render(tiny(REWRITING[name]), row)


def test_a_template_that_leaves_a_turn_open_is_refused():
    """Only where there is a system prompt, so that a look at the template alone does not tell."""
    closing = "{% if messages[0]['role'] != 'system' %}<|im_end|>{% endif %}"
    row = {"prompt": [SYSTEM, *QUESTION], "completion": ANSWER}
    with pytest.raises(chat.RenderError, match=r"does not close it with '<\|im_end\|>'"):
        chat.render(tiny(CHATML.replace("<|im_end|>", closing)), row)


BAD_CHATS = {
    "empty": [],
    "a system prompt alone": [SYSTEM],
    "an answer at the end": QUESTION + ANSWER,
    "None": None,
    "a message that is None": [None],
    "nested": [QUESTION],
    "a role unknown": [{"role": "wizard", "content": "q"}],
    "a role of another type": [{"role": ["user"], "content": "q"}],
    "without content": [{"role": "user"}],
    "content null": [{"role": "user", "content": None}],
    "content in parts": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
    "half a surrogate pair": [{"role": "user", "content": "\ud800"}],
}


@pytest.mark.parametrize("name", BAD_CHATS)
def test_a_prompt_that_is_no_chat_is_refused(name):
    with pytest.raises(chat.RenderError):
        chat.prompt_ids(tiny(), BAD_CHATS[name])


@pytest.mark.parametrize("name", BAD_CHATS)
def test_a_chat_that_is_none_is_not_rendered(name):
    if name == "an answer at the end":
        return
    with pytest.raises(chat.RenderError):
        chat.render(tiny(), {"messages": BAD_CHATS[name]})
    if isinstance(BAD_CHATS[name], list) and BAD_CHATS[name] and name != "a system prompt alone":
        with pytest.raises(chat.RenderError):  # in front of a good answer
            chat.render(tiny(), {"prompt": BAD_CHATS[name], "completion": ANSWER})


def test_text_that_is_none_is_refused_in_plain_prompts_too():
    for row in ({"prompt": "\udfff", "completion": "a"}, {"prompt": "q", "completion": "\ud800"}):
        with pytest.raises(chat.RenderError, match="half a surrogate pair"):
            chat.render(tiny(None), row)


def test_a_tokenizer_without_a_pad_token_renders_the_same(tmp_path):
    """Nothing is padded by token: the masks come from positions."""
    with_pad, without = tiny(), tiny()
    without.pad_token = None
    assert without.pad_token_id is None
    row = {"prompt": QUESTION, "completion": ANSWER}
    assert chat.render(without, row) == chat.render(with_pad, row)
    without.save_pretrained(tmp_path)
    loaded = models.load_tokenizer(str(tmp_path))
    assert chat.render(loaded, row) == chat.render(with_pad, row)
    assert chat.stop_ids(loaded) == chat.stop_ids(with_pad)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path):
    tokenizer = tiny()
    tokenizer.eos_token = tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(models.ModelError, match=r"has no end token.*set eos_token"):
        models.load_tokenizer(str(tmp_path))
    with pytest.raises(chat.RenderError, match="plain text needs an end token"):
        chat.render(tokenizer, {"prompt": "q", "completion": "a"})
    assert chat.stop_ids(tokenizer) == [tokenizer.convert_tokens_to_ids(STOP)]  # the template's
    tokenizer.chat_template = None
    with pytest.raises(chat.RenderError, match="neither an end token nor a chat template"):
        chat.stop_ids(tokenizer)


def test_a_good_chat_is_still_a_good_one():
    row = {"messages": [SYSTEM, *QUESTION, *ANSWER]}
    assert trained(tiny(), chat.render(tiny(), row)) == [ANSWER[0]["content"] + STOP]
