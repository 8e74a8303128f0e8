import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from trl import chat_template_utils

from data import chat

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTION = [{"role": "user", "content": "2+2?"}]
ANSWER = [{"role": "assistant", "content": "<think>a</think>\n<answer>4</answer>"}]
AGAIN = [{"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}]
STOP = "<|im_end|>"


def tiny(template=CHATML, *, bos=False, eos_added=False):
    """Bytes as tokens, one merge (two newlines), ChatML's special tokens, pad token = end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: index for index, each in enumerate([*alphabet, "ĊĊ"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(
        [AddedToken(each, special=True) for each in ("<s>", "<|im_start|>", STOP)]
    )
    if bos or eos_added:
        single = f"{'<s> ' if bos else ''}$A{' ' + STOP if eos_added else ''}"
        names = [each for each in ("<s>", STOP) if each in single]
        core.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(each, core.token_to_id(each)) for each in names]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token=STOP, pad_token=STOP
    )
    tokenizer.chat_template = template
    return tokenizer


def trained(tokenizer, rendered):
    """The trained stretches as text."""
    assert len(rendered.ids) == len(rendered.mask)
    stretches, previous = [], 0
    for token, flag in zip(rendered.ids, rendered.mask, strict=True):
        if flag:
            stretches = stretches if previous else [*stretches, []]
            stretches[-1].append(token)
        previous = flag
    return [tokenizer.decode(each) for each in stretches]


def test_prompt_and_completion_train_the_answer_and_its_stop_token_once():
    tokenizer = tiny()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rendered = chat.render(tokenizer, {"prompt": QUESTION, "completion": ANSWER})
    before = chat.prompt_ids(tokenizer, QUESTION)
    assert tokenizer.decode(before) == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    assert rendered.ids[: len(before)] == before
    assert rendered.mask == [0] * len(before) + [1] * (len(rendered.ids) - len(before))
    assert trained(tokenizer, rendered) == [ANSWER[0]["content"] + STOP]
    assert rendered.ids[-1] == tokenizer.eos_token_id


def test_messages_train_every_assistant_turn_and_nothing_else():
    tokenizer = tiny()
    system = [{"role": "system", "content": "s"}]
    rendered = chat.render(tokenizer, {"messages": system + QUESTION + ANSWER + AGAIN})
    assert trained(tokenizer, rendered) == [ANSWER[0]["content"] + STOP, "6" + STOP]
    whole = tokenizer.apply_chat_template(system + QUESTION + ANSWER + AGAIN, tokenize=False)
    # The template's newline after the first stop is there, untrained; after the last it is cut.
    assert tokenizer.decode(rendered.ids) + "\n" == whole


def test_earlier_assistant_turns_of_a_prompt_are_not_trained():
    tokenizer = tiny()
    row = {"prompt": QUESTION + ANSWER + AGAIN[:1], "completion": AGAIN[1:], "messages": None}
    assert trained(tokenizer, chat.render(tokenizer, row)) == ["6" + STOP]


@pytest.mark.parametrize("bos", [False, True])
def test_plain_strings_train_the_completion_and_the_end_token(bos):
    tokenizer = tiny(None, bos=bos)
    rendered = chat.render(tokenizer, {"prompt": "2+2=", "completion": "4"})
    before = chat.prompt_ids(tokenizer, "2+2=")
    assert tokenizer.decode(before) == ("<s>" if bos else "") + "2+2="
    assert rendered.ids == [
        *before,
        *tokenizer("4", add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    assert rendered.mask == [0] * len(before) + [1, 1]


def test_plain_strings_are_joined_as_tokens_so_that_the_prompt_stays_a_prefix():
    tokenizer = tiny(None)
    rendered = chat.render(tokenizer, {"prompt": "a\n", "completion": "\nb"})
    assert rendered.ids[:2] == chat.prompt_ids(tokenizer, "a\n")
    assert len(rendered.ids) == 5, "two separate newlines, not the merged one"


def test_an_end_token_that_the_tokenizer_adds_to_a_prompt_is_taken_off():
    tokenizer = tiny(None, bos=True, eos_added=True)
    assert tokenizer.decode(tokenizer("ab")["input_ids"]) == "<s>ab<|im_end|>"
    assert tokenizer.decode(chat.prompt_ids(tokenizer, "ab")) == "<s>ab"


def test_stop_ids_are_the_turns_end_and_the_end_token():
    tokenizer = tiny()
    end = tokenizer.convert_tokens_to_ids(STOP)
    assert chat.stop_ids(tokenizer) == [end]
    tokenizer.eos_token = "<s>"
    assert chat.stop_ids(tokenizer) == [end, tokenizer.convert_tokens_to_ids("<s>")]
    tokenizer.chat_template = None
    assert chat.stop_ids(tokenizer) == [tokenizer.convert_tokens_to_ids("<s>")]


def test_an_answer_that_merges_with_the_prompts_last_token_is_refused():
    row = {"prompt": QUESTION, "completion": [{"role": "assistant", "content": "\n4"}]}
    with pytest.raises(chat.RenderError, match="tokens merge across the border"):
        chat.render(tiny(), row)


def test_an_answer_that_contains_the_stop_token_is_refused():
    row = {"prompt": QUESTION, "completion": [{"role": "assistant", "content": f"4{STOP}5"}]}
    with pytest.raises(chat.RenderError, match="token that ends a turn"):
        chat.render(tiny(), row)


def test_a_template_that_ends_turns_without_a_special_token_is_refused():
    tokenizer = tiny("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    with pytest.raises(chat.RenderError, match="no single special token"):
        chat.stop_ids(tokenizer)


def test_a_template_that_changes_the_prompt_once_answered_is_refused():
    late = CHATML.replace("{% for m", "{{ messages|length }}{% for m", 1)
    with pytest.raises(chat.RenderError, match=r"renders the prompt differently.*'1.*became '2"):
        chat.render(tiny(late), {"prompt": QUESTION, "completion": ANSWER})


def test_a_template_that_drops_earlier_thinking_is_refused():
    forgetful = CHATML.replace(
        "{{ m['content'] }}",
        "{{ m['content'] if loop.last else m['content'].split('</think>')[-1] }}",
    )
    tokenizer = tiny(forgetful)
    with pytest.raises(
        chat.RenderError, match=r"turn 1: the chat template rewrites.*became '\\n<answer>"
    ):
        chat.render(tokenizer, {"messages": QUESTION + ANSWER + AGAIN})
    last = {"prompt": QUESTION + ANSWER + AGAIN[:1], "completion": AGAIN[1:]}
    assert trained(tokenizer, chat.render(tokenizer, last)) == ["6" + STOP]


def test_qwen3s_forgetful_template_is_replaced_by_trls_training_variant():
    tokenizer = tiny(chat_template_utils.qwen3_chat_template)
    found = trained(tokenizer, chat.render(tokenizer, {"messages": QUESTION + ANSWER + AGAIN}))
    assert [each.replace("\n", "") for each in found] == [
        "<think>a</think><answer>4</answer>" + STOP,
        "<think></think>6" + STOP,
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": QUESTION, "completion": "4"}, "both messages or both strings"),
        ({"completion": "4", "messages": QUESTION + ANSWER}, "both messages or both strings"),
        ({"prompt": QUESTION}, "a row needs prompt and completion"),
        ({"messages": QUESTION}, "no assistant turn"),
        ({"messages": ANSWER}, "starts with the assistant"),
    ],
)
def test_a_row_with_nothing_to_train_is_refused(row, said):
    with pytest.raises(chat.RenderError, match=said):
        chat.render(tiny(), row)


def test_prompts_that_await_no_answer_or_lack_a_template_are_refused():
    with pytest.raises(chat.RenderError, match="awaits an answer"):
        chat.prompt_ids(tiny(), QUESTION + ANSWER)
    with pytest.raises(chat.RenderError, match="style='r1-zero'"):
        chat.prompt_ids(tiny(None), QUESTION)
