import json
import logging
from collections import Counter

import pytest

import data
from data import DataError, Local, RottenTomatoes, hub
from data.validate import check_rows

POSITIVE = [f"good film number {index} is fun" for index in range(30)]
NEGATIVE = [f"bad film number {index} is dull" for index in range(20)]


def write(path, texts, label):
    lines = [json.dumps({"text": text, "label": label}) for text in texts]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def reviews(tmp_path):
    """The folder of a positive and a negative file, as two files in one."""
    write(tmp_path / "neg.jsonl", NEGATIVE, 0)
    write(tmp_path / "pos.jsonl", POSITIVE, 1)
    return tmp_path


def read(path, **fields):
    return list(Local(path=str(path), **fields).rows())


def test_openings_are_the_default_and_join_to_the_text_behind_the_prefix(reviews):
    rows = read(reviews, prefix="Movie review: ", opening_words=2)
    assert rows == read(reviews, prefix="Movie review:", opening_words=2, use="openings")
    assert Counter(row["label"] for row in rows) == {True: 30, False: 20}
    for row in rows:
        assert row["prompt"] == "Movie review: " + " ".join(row["text"].split()[:2])
        assert row["prompt"] + row["completion"] == "Movie review: " + row["text"]
        assert row["label"] is row["text"].startswith("good")


def test_without_a_prefix_the_words_stand_alone(tmp_path):
    path = write(tmp_path / "a.jsonl", ["one  two\nthree"], 1)
    row = read(path, prefix="", opening_words=1)[0]
    assert (row["prompt"], row["completion"]) == ("one", " two three")


def test_a_text_without_a_rest_is_left_out_and_counted(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", ["one two three", "one two three four"], 1)
    with caplog.at_level(logging.WARNING):
        assert [row["completion"] for row in read(path, opening_words=3)] == [" four"]
    assert "left out 1 rows" in caplog.text
    assert "1 of no more than 3 words" in caplog.text


def test_pairs_use_every_text_once_under_one_prompt(reviews, caplog):
    with caplog.at_level(logging.WARNING):
        rows = read(reviews, use="pairs")
    assert [set(row) for row in rows] == [{"prompt", "chosen", "rejected"}] * 20
    assert {row["prompt"] for row in rows} == {"Text:"}
    assert {row["rejected"] for row in rows} == {f" {text}" for text in NEGATIVE}
    chosen = {row["chosen"] for row in rows}
    assert len(chosen) == 20
    assert chosen < {f" {text}" for text in POSITIVE}
    assert "10 without a partner of the other label" in caplog.text
    assert check_rows(rows, "reward_model").rows == 20


def test_pairing_goes_by_the_seed(reviews):
    assert read(reviews, use="pairs", seed=1) == read(reviews, use="pairs", seed=1)
    pairs = [
        {(row["chosen"], row["rejected"]) for row in read(reviews, use="pairs", seed=seed)}
        for seed in (1, 2)
    ]
    assert len(pairs[0] & pairs[1]) < 8
    assert len(read(reviews, use="pairs", limit=7)) == 7


def test_unpaired_rows_are_whole_texts_with_their_label(reviews):
    rows = read(reviews, use="kto")
    assert {(row["prompt"], row["completion"], row["label"]) for row in rows} == {
        ("Text:", f" {text}", text in POSITIVE) for text in POSITIVE + NEGATIVE
    }
    assert check_rows(rows, "kto").rows == 50


def test_every_stretch_mixes_the_labels(reviews):
    labels = [row["label"] for row in read(reviews)]
    for length in range(1, 51):
        assert abs(sum(labels[:length]) - 0.6 * length) <= 1


@pytest.mark.parametrize("use", ["openings", "pairs", "kto"])
def test_parts_of_a_split_share_no_text_whatever_files_and_seeds(reviews, use):
    def texts(path, split, seed):
        rows = read(path, split=split, seed=seed, use=use)
        return {
            row[name].split("film ")[0][-5:] + row[name].split(" is ")[0].split()[-1]
            for row in rows
            for name in ("text", "chosen", "rejected", "completion")
            if name in row and ("text" not in row or name == "text")
        }

    both = f"{reviews / 'pos.jsonl'}+{reviews / 'neg.jsonl'}"
    train, held = texts(reviews, "train[:80%]", 1), texts(both, "train[80%:]", 2)
    assert not train & held
    assert (len(train), len(held)) == ((32, 8) if use == "pairs" else (40, 10))


def test_the_order_is_that_of_the_texts_not_of_the_files(reviews):
    both = f"{reviews / 'pos.jsonl'}+{reviews / 'neg.jsonl'}"
    assert read(reviews) == read(both)
    assert read(reviews, seed=1) != read(reviews)
    assert sorted(map(str, read(reviews, seed=1))) == sorted(map(str, read(reviews)))


def test_repeated_and_contradictory_texts_are_left_out(tmp_path, caplog):
    write(tmp_path / "pos.jsonl", ["a b c", "a  b c ", "d e f", "g h i"], 1)
    write(tmp_path / "neg.jsonl", ["d e f", "j k l"], 0)
    with caplog.at_level(logging.WARNING):
        rows = read(tmp_path, use="kto")
    assert {row["completion"] for row in rows} == {" a b c", " g h i", " j k l"}
    assert len(rows) == 3
    assert "1 a text for the second time" in caplog.text
    assert "2 under both labels" in caplog.text


@pytest.mark.parametrize("label", ["1", "true", 2, -1, 1.0])
def test_a_label_that_is_neither_0_nor_1_is_refused_with_its_row(tmp_path, label):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "a b c d e f", "label": 1}, {"text": "b c d e f g", "label": label}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match=r"2nd row .*label is 0 \(negative\) or 1 \(positive\)"):
        read(path)


def test_booleans_are_labels_and_null_is_not(tmp_path):
    write(tmp_path / "a.jsonl", ["a b c d e f"], True)
    assert [row["label"] for row in read(tmp_path)] == [True]
    write(tmp_path / "a.jsonl", ["a b c d e f"], None)
    with pytest.raises(data.RowError, match=r"1st row, column 'label'.*null"):
        read(tmp_path)


def test_pairs_of_one_label_alone_are_refused_with_what_to_type(reviews):
    with pytest.raises(DataError, match=r"both labels, and all 20 have the label 0.*pos.jsonl\+"):
        read(reviews / "neg.jsonl", use="pairs")
    with pytest.raises(DataError, match=r"split='\[:0%\]' gives no rows, of 50"):
        read(reviews, use="pairs", split="[:0%]")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("use=pears", "use='pears' is unknown; the uses are openings, pairs, kto, sft"),
        ("use=pairs&prefix= ", "use='pairs' needs a prefix"),
        ("use=kto&prefix=", "use='kto' needs a prefix"),
        ("use=kto&opening_words=3", "opening_words= cuts openings"),
        ("opening_words=0", "opening_words=0 must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_read(reviews, options, said):
    with pytest.raises(DataError, match=said):
        data.resolve(f"{reviews}?{options}")


def test_options_of_labelled_text_do_not_fit_other_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q", "answer": "1"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"use='pairs' does not fit.*question-answer.*one way"):
        read(path, use="pairs")
    with pytest.raises(DataError, match=r"prefix= is for labelled text.*question-answer"):
        read(path, prefix="Q:")
    with pytest.raises(DataError, match="opening_words= is for labelled text"):
        data.resolve("gsm8k?opening_words=3")
    with pytest.raises(DataError, match=r"use='sft' does not fit.*openings, pairs, kto"):
        data.resolve("rotten-tomatoes?use=sft")


def test_options_are_written_behind_a_question_mark(reviews):
    found = data.resolve(f"{reviews}?use=openings&opening_words=3&prefix=Film:&split=[:80%]")
    assert found == Local(
        path=str(reviews), use="openings", opening_words=3, prefix="Film:", split="[:80%]"
    )
    assert data.resolve(f"rotten-tomatoes?path={reviews}&use=pairs").rows()["prompt"] == (
        ["Movie review:"] * 20
    )


def test_a_hub_set_is_cut_by_texts_too(monkeypatch):
    rows = [{"text": text, "label": 1} for text in POSITIVE]
    rows += [{"text": text, "label": 0} for text in NEGATIVE]
    asked = []

    def load(*args):
        asked.append(args)
        return rows

    monkeypatch.setattr(hub, "load", load)
    found = data.resolve("rotten-tomatoes?split=validation[:50%]")
    assert found == RottenTomatoes(split="validation[:50%]")
    assert Counter(found.rows()["label"]) == {True: 15, False: 10}
    assert asked == [("cornell-movie-review-data/rotten_tomatoes", None, "validation")]
    assert data.resolve("cornell-movie-review-data/rotten_tomatoes") == RottenTomatoes()


def test_real_reviews_as_pairs(shared_data):
    path = f"rotten-tomatoes?path={shared_data / 'rt_polarity'}"
    train, held = (
        data.resolve(f"{path}&use=pairs&split={split}").rows()
        for split in ("train[:80%]", "train[80%:]")
    )
    assert check_rows(train, "reward_model") == data.validate.RowReport(rows=4265, duplicates=0)
    assert check_rows(held, "reward_model") == data.validate.RowReport(rows=1066, duplicates=0)
    seen, new = ({*rows["chosen"], *rows["rejected"]} for rows in (train, held))
    assert len(seen) == 2 * 4265
    assert len(new) == 2 * 1066
    assert not seen & new
    openings = data.resolve(f"{path}&split=train[80%:]").rows()
    assert {f" {text}" for text in openings["text"]} <= new
    assert check_rows(openings, "ppo").rows == 2087
