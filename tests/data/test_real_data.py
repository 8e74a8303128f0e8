"""Every file of the shared data folder loads, validates and renders what it should."""

import pytest

import data
from data.validate import check_rows

FILES = {
    "gsm8k/train.jsonl": ("grpo", 7473),
    "gsm8k/test.jsonl": ("evaluate", 1319),
    "mawps/train.jsonl": ("grpo", 1898),
    "mawps/valid.jsonl": ("evaluate", 237),
    "svamp/svamp.jsonl": ("evaluate", 1000),
    "countdown/train.jsonl": ("grpo", 4000),
    "countdown/test.jsonl": ("evaluate", 1024),
    "hh_rlhf/harmless_base_test.jsonl": ("preference", 2308),  # in 4 one side answers nothing
    "ultrafeedback/train_clean.jsonl": ("reward_model", 994),  # 6 are equal or empty
    "ultrafeedback/eval_clean.jsonl": ("preference", 199),  # 1 is equal
    "rt_polarity/pos.jsonl": ("sft", 5247),  # 84 are too short to have a rest
    "rt_polarity/neg.jsonl": ("sft", 5232),
    "chat/instruct.jsonl": ("sft", 1100),
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_recognised_mapped_and_valid(shared_data, name):
    kind, count = FILES[name]
    rows = data.resolve(str(shared_data / name)).rows()
    assert check_rows(rows, kind).rows == len(rows) == count


def test_no_data_file_is_forgotten(shared_data):
    found = {str(path.relative_to(shared_data)) for path in shared_data.glob("*/*.jsonl")}
    assert {name for name in found if not name.startswith("cases/")} == set(FILES)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gsm8k/train.jsonl", 7473),
        ("countdown/train.jsonl", 4000),
        ("mawps/train.jsonl", 1791),
        ("svamp/svamp.jsonl", 997),
    ],
)
def test_worked_completions_serve_sft(shared_data, name, count):
    rows = data.Local(path=str(shared_data / name), complete=True).rows()
    assert check_rows(rows, "sft").rows == len(rows) == count
    for row in rows:
        text = row["completion"][0]["content"]
        assert text.startswith("<think>")
        assert text.count("</think>\n<answer>") == 1
        assert "<<" not in text
        if "nums" not in row:
            assert text.endswith(f"<answer>{row['solution']}</answer>")


def test_dialogues_start_and_end_where_they_should(shared_data):
    rows = data.HHRLHF(path=str(shared_data / "hh_rlhf/harmless_base_test.jsonl")).rows()
    unsplit = []
    for row in rows:
        assert row["prompt"][-1]["role"] == "user"
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["chosen"][0] != row["rejected"][0]
        turns = [each for column in ("prompt", "chosen", "rejected") for each in row[column]]
        unsplit += [each["content"] for each in turns if "\n\nHuman:" in each["content"]]
    # One answer of the set writes such a line itself: "Assistant: Human: You don't have …".
    assert len(unsplit) == 1 and unsplit[0].startswith("Human: Okay")
