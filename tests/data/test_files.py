import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import DataError
from data.files import cut, find, read, split_name

ROWS = [{"question": f"q{index}", "answer": str(index)} for index in range(10)]


def write(path, *lines):
    path.write_bytes(b"\n".join(lines))
    return path


def test_jsonl_and_parquet_give_the_same_rows(tmp_path):
    lines = [json.dumps(row).encode() for row in ROWS]
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert read(write(tmp_path / "rows.jsonl", *lines)) == ROWS
    assert read(tmp_path / "rows.parquet") == ROWS


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    assert read(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}', b"", b" ", b'{"a": 2}')) == [
        {"a": 1},
        {"a": 2},
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((b'{"a": 1}', b'{"a": '), "line 2: not JSON"),
        ((b'{"a": 1}', b"", b'{"a": "\xff"}'), "line 3: not UTF-8"),
        ((b'{"a": 1}', b"[1]"), "line 2: a JSON object is expected, here is a list"),
        ((b'{"a": 1} {"a": 2}',), "line 1: not JSON"),
        ((b"[" * 100_000,), "line 1: not JSON"),
        ((b"",), "holds no rows"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, lines, said):
    path = write(tmp_path / "bad.jsonl", *lines)
    with pytest.raises(DataError, match=f"bad.jsonl.*{said}"):
        read(path)


def test_missing_unknown_and_broken_parquet_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*none.jsonl"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"'.csv'"):
        read(write(tmp_path / "rows.csv", b"a,b"))
    with pytest.raises(DataError, match=r"rows.parquet: not a readable Parquet"):
        read(write(tmp_path / "rows.parquet", b"PAR1 no"))


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ("train", range(10)),
        ("train[:80%]", range(8)),
        ("train[80%:]", range(8, 10)),
        ("[2:5]", range(2, 5)),
        ("test[-3:]", range(7, 10)),
        ("[:25%]", range(2)),
    ],
)
def test_cut_takes_the_part_that_split_names(split, wanted):
    assert cut(ROWS, split) == [ROWS[index] for index in wanted]


def test_the_two_sides_of_one_cut_are_disjoint_and_complete():
    for percent in range(0, 101, 7):
        assert cut(ROWS, f"[:{percent}%]") + cut(ROWS, f"[{percent}%:]") == ROWS


def test_a_split_that_is_not_understood_is_refused():
    with pytest.raises(DataError, match="train\\[:90%\\]"):
        cut(ROWS, "train[a:b]")


def test_a_path_names_a_file_a_folder_or_several(tmp_path):
    for name in ("b.jsonl", "a.parquet", ".hidden.jsonl", "notes.txt", "c+d.jsonl"):
        write(tmp_path / name, b"{}")
    a, b, plus = (tmp_path / name for name in ("a.parquet", "b.jsonl", "c+d.jsonl"))
    assert find(str(b)) == [b]
    assert find(str(plus)) == [plus]
    assert find(f"{b}+{a}") == [b, a]
    assert find(str(tmp_path)) == [a, b, plus]
    (tmp_path / "inside").mkdir()
    inside = write(tmp_path / "inside" / "d.jsonl", b"{}")
    assert find(f"{tmp_path / 'inside'}+{b}") == [inside, b]


def test_paths_that_name_nothing_readable_are_refused(tmp_path):
    a = write(tmp_path / "a.jsonl", b"{}")
    with pytest.raises(DataError, match=r"no file .*none.jsonl"):
        find(f"{a}+{tmp_path / 'none.jsonl'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no .jsonl or .parquet file"):
        find(str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"names .*a\.jsonl twice"):
        find(f"{tmp_path}+{a}")


@pytest.mark.parametrize(
    ("names", "several"),
    [
        (("train.jsonl", "test.jsonl"), True),
        (("train_clean.jsonl", "eval_clean.jsonl"), True),
        (("pos.jsonl", "train.jsonl"), True),
        (("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"), False),
        (("latest.jsonl", "trains.jsonl"), False),
    ],
)
def test_a_folder_of_several_splits_is_not_read_as_one(tmp_path, names, several):
    for name in names:
        write(tmp_path / name, b"{}")
    if several:
        with pytest.raises(DataError, match=r"several splits.*name the file"):
            find(str(tmp_path))
    else:
        assert len(find(str(tmp_path))) == 2


def test_the_name_of_a_split_is_what_stands_before_the_brackets():
    assert [split_name(each) for each in ("test", "test[:5]", "[5:]")] == ["test", "test", "train"]
    with pytest.raises(DataError, match="not understood"):
        split_name("train[:5]+test[:5]")
