"""JSON Lines of whatever bytes, rows of whatever values: rows that a stage can use, or a DataError
that says what was wrong.
"""

import json
import math

import made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import DataError
from data.files import read
from data.shapes import SHAPES
from data.sources import Local
from data.validate import KINDS, check_rows

ROW = {"prompt": [{"role": "user", "content": "é 2+2?"}], "solution": "4", "margin": 1.5e2}
LINE = json.dumps(ROW, ensure_ascii=False).encode()
BYTES = (
    b"\xff", b"\x00", b"\n", b"\r", b'"', b"{", b"}", b"[", b"NaN", b"1e999", b"\xef\xbb\xbf",
    b'"prompt": 1, ', b"\\ud800", b"\x1f\x8b", b"-", b"\xe2\x80\xa8", b"9" * 5000, b"[" * 3000,
)  # fmt: skip
cuts = st.tuples(st.integers(0, 3 * len(LINE)), st.integers(0, 9), st.sampled_from(BYTES))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "rows.jsonl"


def finite(value):
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, list) or all(map(finite, value))


@settings(max_examples=1_500)
@given(st.lists(cuts, max_size=3), st.binary(max_size=8))
def test_bytes(file, edits, tail):
    raw = b"\n".join([LINE] * 3) + tail
    for start, length, put in edits:
        raw = raw[:start] + put + raw[start + length :]
    file.write_bytes(raw)
    try:
        rows = read(file)
    except DataError as error:
        assert "rows.jsonl" in str(error)
        return
    for row in rows:
        assert isinstance(row, dict) and finite(row)
        json.dumps(row, ensure_ascii=False).encode()  # text of whole characters


columns = sorted({column for shape in SHAPES for column in shape.columns} | {"label", "margin"})
contents = st.one_of(made.texts, made.chats)
objects = st.one_of(
    st.dictionaries(st.sampled_from(columns), made.mostly(contents), max_size=4),
    st.sampled_from(SHAPES).flatmap(
        lambda shape: st.fixed_dictionaries(
            {column: made.mostly(contents) for column in sorted(shape.columns)},
            optional={"margin": made.values, "kind": made.values},
        )
    ),
)


@settings(max_examples=1_300)
@given(st.lists(objects, min_size=1, max_size=3), st.sampled_from(KINDS))
def test_rows(file, table, kind):
    file.write_text("".join(json.dumps(row) + "\n" for row in table))
    try:
        report = check_rows(Local(path=str(file)).rows(), kind)
    except DataError as error:
        assert str(error)
        return
    assert 0 < report.rows <= len(table)
