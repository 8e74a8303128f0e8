import re
import tomllib
from pathlib import Path

import pytest

import data
from data import DataError, Everyday
from data.validate import check_rows

USES = ("sft", "prompts", "helpful", "harmless")


def request(row):
    return row["prompt"][-1]["content"]


def answer(row, column):
    assert [each["role"] for each in row[column]] == ["assistant"]
    return row[column][0]["content"]


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize(
    ("use", "kind"),
    [("sft", "sft"), ("helpful", "reward_model"), ("harmless", "preference")],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_are_what_the_stages_read(split, use, kind, thinking):
    rows = Everyday(split=split, use=use, thinking=thinking).rows()
    report = check_rows(rows, kind)
    assert report.duplicates == 0
    assert set(rows["kind"]) <= {"general", "decline"}


def test_there_is_enough_of_it_and_no_request_comes_twice():
    for use, train, test in (("prompts", 900, 250), ("helpful", 600, 150), ("harmless", 300, 100)):
        for split, least in (("train", train), ("test", test)):
            texts = [request(row) for row in Everyday(use=use, split=split).rows()]
            assert len(texts) >= least
            assert len(set(texts)) == len(texts)


def test_prompts_have_a_null_solution_and_both_kinds():
    rows = Everyday(use="prompts").rows()
    assert set(rows.column_names) == {"prompt", "kind", "solution"}
    assert set(rows["solution"]) == {None}
    assert set(rows["kind"]) == {"general", "decline"}


@pytest.mark.parametrize("use", USES)
def test_train_and_test_share_no_request(use):
    sides = [
        {request(row) for row in Everyday(use=use, split=split, seed=seed).rows()}
        for seed, split in ((0, "train"), (1, "test"))
    ]
    assert not sides[0] & sides[1]


def test_all_phrasings_about_one_thing_fall_on_one_side():
    train, test = (
        " ".join(request(row) for row in Everyday(split=split, use="prompts").rows())
        for split in ("train", "test")
    )
    countries = tomllib.loads(
        (Path(data.__file__).parent / "everyday" / "general.toml").read_text()
    )["capitals"]["entries"]
    found = [(country in train, country in test) for country, _ in countries]
    assert set(found) == {(True, False), (False, True)}


def test_the_same_fields_give_the_same_rows_and_a_seed_another_order():
    rows = [Everyday(use="helpful", seed=seed).rows().to_list() for seed in (3, 3, 4)]
    assert rows[0] == rows[1] != rows[2]
    assert {request(row) for row in rows[0]} == {request(row) for row in rows[2]}


def test_capitals_are_answered_with_the_capital():
    facts = {"Ghana": "Accra", "Peru": "Lima", "Norway": "Oslo", "Japan": "Tokyo"}
    for row in Everyday(use="sft").rows():
        for country, capital in facts.items():
            if f"capital of {country}" in request(row):
                assert capital in answer(row, "completion")


@pytest.mark.parametrize("use", ["helpful", "harmless"])
@pytest.mark.parametrize("thinking", [False, True])
def test_the_longer_answer_is_no_better_a_guess_than_a_coin(use, thinking):
    rows = Everyday(use=use, thinking=thinking).rows()
    longer = sum(len(answer(row, "chosen")) > len(answer(row, "rejected")) for row in rows)
    assert 0.42 < longer / len(rows) < 0.58


@pytest.mark.parametrize("use", ["helpful", "harmless"])
def test_no_single_word_decides(use):
    """The word that most often stands on one side alone, if it is guessed by."""
    rows = Everyday(use=use).rows()
    words = [
        [set(re.findall(r"\w+", answer(row, column).lower())) for column in ("chosen", "rejected")]
        for row in rows
    ]
    net = {}
    for good, bad in words:
        for word in good ^ bad:
            net[word] = net.get(word, 0) + (1 if word in good else -1)
    best = max(abs(count) for count in net.values())
    assert 0.5 + best / len(rows) / 2 < 0.67


def test_refusing_is_right_as_often_as_wrong():
    refusal = re.compile("help with that|rather not|can do|say no")
    for row in Everyday(use="harmless").rows():
        assert bool(refusal.search(answer(row, "chosen"))) is (row["kind"] == "decline")
    kinds = Everyday(use="harmless").rows()["kind"]
    assert kinds.count("decline") == kinds.count("general")


def test_an_unhelpful_answer_is_never_one_of_the_good_ones():
    from data.everyday.requests import ordinary, twins

    good = {}
    for each in (*ordinary("train"), *twins("train")):
        good.setdefault(each.text, set()).update(text for _, text in each.good)
    for seed in range(5):
        for row in Everyday(use="helpful", seed=seed).rows():
            assert answer(row, "chosen") in good[request(row)]
            assert answer(row, "rejected") not in good[request(row)]


def test_thinking_writes_the_tags_and_nothing_else_does():
    form = re.compile(r"<think>[^<>]+</think>\n<answer>[^<>]+</answer>", re.DOTALL)
    for thinking in (False, True):
        for row in Everyday(use="harmless", thinking=thinking).rows():
            for column in ("chosen", "rejected"):
                assert bool(form.fullmatch(answer(row, column))) is thinking


def test_no_slot_is_left_open():
    for use in USES:
        for row in Everyday(use=use, thinking=True).rows():
            for column in ("prompt", "completion", "chosen", "rejected"):
                assert not re.search("[{}]", row[column][0]["content"] if column in row else "")


def test_by_name_with_its_fields():
    rows = data.resolve("everyday:test?use=helpful&size=7&thinking=true&style=r1").rows()
    assert len(rows) == 7
    assert rows[0]["prompt"][0]["role"] == "system"
    assert answer(rows[0], "chosen").startswith("<think>")


def test_kind_errors():
    with pytest.raises(DataError, match=r"use='pairs' is unknown; .*helpful, harmless"):
        Everyday(use="pairs")
    with pytest.raises(DataError, match="splits train and test"):
        Everyday(split="dev")
    with pytest.raises(DataError, match=r"there are \d+ rows .* not 5000; lower size"):
        Everyday(size=5000).rows()
