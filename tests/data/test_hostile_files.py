"""Files that are broken, hostile or large: an error that names the file and the line, in bounded
memory.
"""

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import DataError, RowError, jsonl, rows
from data.files import opened, read
from data.shapes import recognise
from data.sources import Local
from data.validate import check_rows

REPOSITORY = Path(__file__).resolve().parent.parent.parent
GOOD = b'{"prompt": "q", "solution": "1"}'


def write(tmp_path, raw, name="bad.jsonl"):
    path = tmp_path / name
    path.write_bytes(raw)
    return path


BROKEN = {
    "truncated in a row": (GOOD + b'\n{"prompt": "q", "solu', "line 2: not JSON.*cut short"),
    "truncated in a character": (GOOD + b'\n{"prompt": "\xc3', r"line 2: not UTF-8 \(byte 13\)"),
    "latin-1": (b'{"prompt": "caf\xe9"}', "line 1: not UTF-8"),
    "overlong UTF-8": (b'{"prompt": "\xc0\xaf"}', "line 1: not UTF-8"),
    "a surrogate in UTF-8": (b'{"prompt": "\xed\xa0\x80"}', "line 1: not UTF-8"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "UTF-16: save it as UTF-8, as with iconv"),
    "UTF-16, the other way": (b"\xfe\xff" + GOOD.decode().encode("utf-16-be"), "UTF-16"),
    "UTF-16 without a mark": (
        GOOD.decode().encode("utf-16-le"),
        "line 1: not JSON.*iconv -f UTF-16",
    ),
    "UTF-32": (GOOD.decode().encode("utf-32"), "UTF-32: save it as UTF-8, as with iconv -f UTF-32"),
    "a web page": (b"<!DOCTYPE html><html></html>", "not JSON Lines but an HTML page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1", "a pointer of git-lfs: git lfs"),
    "gzip": (gzip.compress(GOOD), "compressed with gzip: gunzip"),
    "Parquet": (b"PAR1" + bytes(50), "a Parquet file: name it .parquet"),
    "zip": (b"PK\x03\x04" + bytes(50), "a zip archive"),
    "empty": (b"", "holds no rows"),
    "blank lines alone": (b"\n \r\n\t\n", "holds no rows"),
    "a byte-order mark alone": (b"\xef\xbb\xbf", "holds no rows"),
    "zeros": (GOOD + b"\n" + bytes(4096), "line 2: not JSON"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 1}', "line 1: the key 'a' stands twice"),
    "a key twice inside": (
        GOOD + b'\n{"m": [{"role": "user", "content": "x", "role": "system"}]}',
        "line 2: the key 'role' stands twice",
    ),
    "NaN": (GOOD + b'\n{"margin": NaN}', "line 2: NaN is no JSON number"),
    "infinity": (b'{"margin": [-Infinity]}', "line 1: -Infinity is no JSON number"),
    "a number past all bounds": (b'{"margin": 1e999}', "line 1: the number 1e999 is too large"),
    "an integer of 5000 digits": (b'{"n": ' + b"7" * 5000 + b"}", "line 1: not JSON"),
    "a lone surrogate": (GOOD + b'\n{"prompt": "\\ud83d"}', "line 2: half of a surrogate pair"),
    "a lone surrogate as a key": (b'{"\\udc00": 1}', "line 1: half of a surrogate pair"),
    "nesting": (b'{"a":' * 100_000, "line 1: not JSON"),
    "a control character": (b'{"prompt": "a\x00b"}', "line 1: not JSON"),
    "an array": (b"[" + GOOD + b"]", "line 1: a JSON object is expected, here is a list.*jq -c"),
    "an array over lines": (b"[\n" + GOOD + b"\n]", r"line 1: not JSON.*jq -c '\.\[\]'"),
    "a number": (GOOD + b"\n42\n", "line 2: a JSON object is expected, here is a int; mend or"),
    "null": (GOOD + b"\nnull\n", "line 2: a JSON object is expected, here is a NoneType"),
    "a comma after the row": (GOOD + b",\n" + GOOD, "line 1: not JSON"),
    "a space that is none to JSON": (
        GOOD + b"\n\xc2\xa0" + GOOD,
        r"line 2: U\+00A0 before or after",
    ),
    "such a space at the end": (GOOD + b"\xc2\xa0\n", r"line 1: U\+00A0 before or after"),
    "such a space alone": (GOOD + b"\n\xe3\x80\x80\n" + GOOD, r"line 2: U\+3000 before"),
    "a form feed alone": (GOOD + b"\n\x0c\n" + GOOD, r"line 2: U\+000C before or after"),
    "pretty-printed": (b'{\n  "prompt": "q"\n}', "line 1: not JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_line(tmp_path, name):
    raw, said = BROKEN[name]
    with pytest.raises(DataError, match=f"bad.jsonl.*{said}"):
        read(write(tmp_path, raw))


def test_what_is_unusual_and_good_is_read(tmp_path):
    pair = b'{"prompt": "\\ud83d\\ude00 \\u0000 \xe2\x80\xa8", "solution": "1"}'
    path = write(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n\t " + pair + b" \t", "good.jsonl")
    assert read(path) == [json.loads(GOOD), {"prompt": "😀 \x00 \u2028", "solution": "1"}]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rows.json", r"jq -c '\.\[\]' .*rows\.json > .*rows\.jsonl"),
        ("rows.csv", "pandas.*parquet"),
    ],
)
def test_what_makes_rows_of_another_format_is_said(tmp_path, name, said):
    with pytest.raises(DataError, match=said):
        read(write(tmp_path, GOOD, name))


@pytest.mark.parametrize("column", ["promt", "\ufeffprompt"])
def test_the_column_that_may_be_meant_is_named(column):
    with pytest.raises(DataError, match="may be meant to be 'prompt'") as error:
        recognise([column, "solution"], where="rows.jsonl")
    assert repr(column) in str(error.value)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (0, "1st"),
        (1, "2nd"),
        (2, "3rd"),
        (10, "11th"),
        (12, "13th"),
        (20, "21st"),
        (1110, "1,111th"),
    ],
)
def test_rows_are_counted_as_a_reader_does(place, said):
    assert rows.nth(place) == f"{said} row"


def test_a_file_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    path = write(tmp_path, GOOD)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(DataError, match=r"bad.jsonl cannot be read: Permission denied"):
        read(path)


def test_a_line_without_end_is_refused_once_the_limit_is_reached(tmp_path, monkeypatch):
    """2 GB without a line end, as a sparse file: the bytes read are those of one line."""
    monkeypatch.setattr(jsonl, "MAX_LINE", 1 << 20)
    path = tmp_path / "bad.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "')
        file.truncate(2 << 30)
    before = psutil.Process().io_counters().read_chars
    with pytest.raises(DataError, match=r"line 1: longer than 1 MiB.*jq -c"):
        read(path)
    assert psutil.Process().io_counters().read_chars - before < 4 << 20


def test_rows_are_read_when_they_are_asked_for(tmp_path):
    table = [{"n": n, "text": "é" * (n % 7)} for n in range(50)]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in table]
    path = write(tmp_path, b"\xef\xbb\xbf" + b"\n \n".join(lines), "rows.jsonl")
    found = opened(path)
    assert (len(found), found[7], found[-1]) == (50, table[7], table[-1])
    assert found[3:9:2] == table[3:9:2] and list(found) == table
    with pytest.raises(IndexError):
        found[50]
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataError, match=r"rows.jsonl was changed while it was read"):
        found[7]


def test_a_table_in_parts_is_the_table_at_once(tmp_path, monkeypatch):
    """Nulls, whole numbers and lists without elements tell their kind only in a later part."""
    table = [{"a": None, "b": 1, "c": [], "m": [{"role": "user", "content": None}]}] * 3
    table += [
        {"b": 2.5, "a": "x", "c": [1], "m": [{"content": "y", "role": "user"}], "d": True}
    ] * 4
    whole = rows.dataset(table)
    monkeypatch.setattr(rows, "PART", 2)
    parts = rows.dataset(iter(table))
    assert parts.to_list() == whole.to_list() and parts.features == whole.features
    assert rows.dataset([]).num_rows == 0


MIXED = {
    "text and number": (["a", 1], "2nd row.*the same kind as in the 1st row, str 'a'.*found int 1"),
    "text and messages": (["a", [{"role": "user", "content": "x"}]], "2nd row.*found list"),
    "true and text": ([None, True, "true"], "3rd row.*the same kind as in the 2nd row, bool True"),
    "inside": ([[{"n": 1}], [{"n": 2}], [{"n": "x"}]], "3rd row.*1st row, list.*found list"),
    "list and value": ([[1], 2], "2nd row.*found int 2"),
    "more than 64 bits": ([1, 2, 2**70], "3rd row.*found int"),
    "more than 64 bits at once": ([2**70], "1st row.*numbers of 64 bits.*found int"),
    "half a surrogate pair": (["a", "\ud800"], "2nd row.*found str"),
}


@pytest.mark.parametrize("part", [2_000, 1])
@pytest.mark.parametrize("name", MIXED)
def test_a_column_of_two_kinds_is_named_with_its_row(monkeypatch, name, part):
    """Wherever the parts of the table begin."""
    monkeypatch.setattr(rows, "PART", part)
    values, said = MIXED[name]
    said = said if part > 1 else said.split(".*")[0]
    with pytest.raises(RowError, match=f"^{said}") as caught:
        rows.dataset([{"good": "x", "column": value} for value in values])
    assert caught.value.column == "column"


def test_a_table_that_leaves_no_memory_is_refused(monkeypatch):
    monkeypatch.setattr(rows, "LARGE", 1000)
    monkeypatch.setattr(rows, "PART", 5)
    free = psutil.virtual_memory()._replace(available=700)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(DataError, match=r"memory runs out: 15 rows .*\?limit=100000"):
        rows.dataset({"text": "x" * 90} for _ in range(1000))


def test_a_shuffled_part_of_several_files_is_what_it_was(tmp_path):
    """By places rather than rows, with the order that lists of rows had."""
    table = [{"prompt": f"q{n}", "solution": str(n)} for n in range(30)]
    names = []
    for first in (0, 20):
        part = "\n".join(map(json.dumps, table[first : first + 20]))
        names.append(str(write(tmp_path, part.encode(), f"part{first}.jsonl")))
    expected = table[6:27]
    random.Random("order 5").shuffle(expected)
    found = Local(path="+".join(names), split="[20%:90%]", seed=5).rows()
    assert found.to_list() == expected


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (lambda whole: whole[: len(whole) // 2], "not a readable Parquet file"),
        (lambda whole: whole[:-20] + bytes(20), "not a readable Parquet file"),
        (lambda whole: b"", "not a readable Parquet file"),
    ],
)
def test_a_broken_parquet_file_is_named(tmp_path, raw, said):
    pq.write_table(pa.table({"prompt": ["q"] * 1000}), tmp_path / "good.parquet")
    path = write(tmp_path, raw((tmp_path / "good.parquet").read_bytes()), "bad.parquet")
    with pytest.raises(DataError, match=f"bad.parquet: {said}"):
        read(path)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "holds no rows"),
        ({"prompt": pa.array([], pa.string())}, "holds no rows"),
        (
            {"prompt": ["q", "r"], "solution": [1.0, float("nan")]},
            "2nd row .* nan stands for no num",
        ),
        ({"question": ["q"], "answer": [float("nan")]}, "1st row .* nan stands for no number"),
        ({"prompt": [b"q"], "solution": ["1"]}, "1st row, column 'prompt'.*found bytes"),
        ({"prompt": ["q"], "solution": [b"1"]}, "1st row, column 'solution'.*found bytes"),
        ({"prompt": [1], "solution": ["1"]}, "1st row, column 'prompt'.*found int 1"),
        ({"prompt": ["q"], "solution": [True]}, "1st row, column 'solution'.*found bool"),
    ],
    ids=[
        "no columns",
        "empty",
        "NaN",
        "NaN of another shape",
        "bytes",
        "bytes as gold",
        "int",
        "bool",
    ],
)
def test_a_parquet_file_of_wrong_types_is_named_with_its_row(tmp_path, columns, said):
    """As pandas writes a missing value among numbers: NaN, which is no null."""
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=said):
        check_rows(Local(path=str(tmp_path / "bad.parquet")).rows(), "grpo")


def test_a_parquet_file_with_a_column_twice_or_text_that_is_none_is_named(tmp_path):
    ends = pa.array([0, 1], pa.int32()).buffers()[1]
    latin = pa.StringArray.from_buffers(1, ends, pa.py_buffer(b"\xff"))
    one = pa.array([1])
    for arrays, names in (([one, one], ["a", "a"]), ([latin], ["a"])):
        path = tmp_path / "bad.parquet"
        pq.write_table(pa.Table.from_arrays(arrays, names=names), path)
        with pytest.raises(DataError, match=r"bad.parquet: not a readable Parquet file"):
            read(path)


READ = """
import resource, sys
import data
data.resolve("arithmetic?size=5").rows()  # what is imported on the way
before = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (before + int(sys.argv[2]), -1))
rows = data.resolve(sys.argv[1]).rows()
print(len(rows), rows[len(rows) - 1]["solution"])
"""


def peaked(path, room, options=""):
    """What reading a file says in a process that has so many bytes of address space for it."""
    return subprocess.run(
        [sys.executable, "-c", READ, f"{path}{options}", str(room)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
        capture_output=True,
        text=True,
    )


def grow(path, size):
    """A file of at least so many bytes; its rows."""
    row = {"prompt": "How much is it? " * 60, "solution": "18"}
    line = (json.dumps(row) + "\n").encode() * 1000
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(line)
        return file.tell() // len(line) * 1000


def test_a_file_is_read_within_a_few_times_the_memory_of_its_table(tmp_path):
    path = tmp_path / "large.jsonl"
    count = grow(path, 48 << 20)
    done = peaked(path, 192 << 20)
    assert done.stdout.split() == [str(count), "18"], done.stderr
    # A part of it takes next to nothing.
    done = peaked(path, 64 << 20, "?limit=1000")
    assert done.stdout.split() == ["1000", "18"], done.stderr


@pytest.mark.long
def test_two_gigabytes_are_read(tmp_path):
    path = tmp_path / "large.jsonl"
    count = grow(path, 2 << 30)
    done = peaked(path, 6 << 30)
    assert done.stdout.split() == [str(count), "18"], done.stderr
