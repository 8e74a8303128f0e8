import json
import logging

import pytest

from data import GSM8K, DataError, Hub, Local, RowError, shapes


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def local(tmp_path, *rows, **fields):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return Local(path=str(path), **fields)


def test_unknown_columns_are_listed_with_the_shapes_known(tmp_path):
    with pytest.raises(DataError) as error:
        local(tmp_path, {"frage": "?", "antwort": "!"}).rows()
    assert "antwort, frage" in str(error.value)
    assert all(name in str(error.value) for name in shapes.NAMES)


def test_a_bad_row_is_named_with_its_place_and_column(tmp_path):
    good = {"question": "q", "answer": "1"}
    with pytest.raises(RowError, match=r"3rd row, column 'answer'.*null") as error:
        local(tmp_path, good, good, {"question": "q", "answer": None}).rows()
    assert (error.value.row, error.value.column) == (2, "answer")
    with pytest.raises(RowError, match=r"2nd row, column 'question'.*no such column"):
        local(tmp_path, good, {"answer": "1"}, seed=3).rows()
    with pytest.raises(
        DataError, match=r"2nd row is not of shape question-answer.*question: int 7"
    ):
        local(tmp_path, good, {"question": 7, "answer": "1"}).rows()


def test_rows_of_no_use_are_left_out_and_counted(tmp_path, caplog):
    pairs = [
        {"prompt": "a", "chosen": "x", "rejected": "y"},
        {"prompt": "b", "chosen": "same", "rejected": "same"},
        {"prompt": "c", "chosen": "x", "rejected": " "},
    ]
    with caplog.at_level(logging.WARNING):
        rows = local(tmp_path, *pairs).rows()
    assert [row["prompt"] for row in rows] == [user("a")]
    assert "left out 2 rows (the first: the 2nd row of" in caplog.text
    assert "1 with chosen and rejected the same; 1 with an empty answer" in caplog.text
    with pytest.raises(DataError, match=r"no rows, of 1 .*left out: 1 with chosen and rejected"):
        local(tmp_path, pairs[1]).rows()


def test_complete_keeps_only_rows_with_every_column(tmp_path):
    worked = {"original_text": "a", "equation": "X=1+1", "ans": 2.0}
    unworked = {"original_text": "b", "equation": "X-1=1", "ans": 2.0}
    assert len(local(tmp_path, worked, unworked).rows()) == 2
    rows = local(tmp_path, worked, unworked, complete=True).rows()
    assert rows["prompt"] == [user("a")]


def test_split_seed_and_limit_choose_rows(tmp_path):
    rows = [{"question": f"q{index}", "answer": "1"} for index in range(20)]

    def questions(**fields):
        return [row["prompt"][0]["content"] for row in local(tmp_path, *rows, **fields).rows()]

    everything = [row["question"] for row in rows]
    assert questions() == everything
    assert questions(limit=3) == everything[:3]
    assert questions(split="train[:50%]") + questions(split="train[50%:]") == everything
    assert questions(seed=1) != everything
    assert sorted(questions(seed=1)) == sorted(everything)
    assert questions(seed=1, limit=5) == questions(seed=1)[:5]
    assert questions(seed=1) != questions(seed=2)


def test_a_source_without_a_place_to_read_is_refused_at_once():
    with pytest.raises(DataError, match="Local needs path="):
        Local()
    with pytest.raises(DataError, match="shape='gsm' is unknown"):
        Hub(id="a/b", shape="gsm")
    with pytest.raises(DataError, match="limit"):
        GSM8K(limit=0)


def test_several_files_are_of_one_shape_and_errors_name_the_file(tmp_path):
    good, other = {"question": "q", "answer": "1"}, {"prompt": "q"}
    for name, rows in {"a": [good], "b": [good, {"question": "q"}], "c": [other]}.items():
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    a, b, c = (str(tmp_path / f"{name}.jsonl") for name in "abc")
    with pytest.raises(RowError, match=r"2nd row, column 'answer'.*b\.jsonl, question-answer"):
        Local(path=f"{a}+{b}").rows()
    with pytest.raises(DataError, match=r"a\.jsonl: question-answer.*c\.jsonl: prompt"):
        Local(path=f"{a}+{c}").rows()
    (tmp_path / "d.jsonl").write_text(json.dumps(good), encoding="utf-8")
    assert len(Local(path=f"{a}+{tmp_path / 'd.jsonl'}").rows()) == 2
