import json
import logging
import re
from collections import Counter
from itertools import pairwise

import pytest

import data
from data import HHRLHF, DataError, Local, RowError
from data.validate import check_rows


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


NAMES = {"user": "Human", "assistant": "Assistant"}
SPEAKER = re.compile(r"\n\n(Human|Assistant):")
PAIR = {"prompt": "Why?", "chosen": "As.", "rejected": "No."}


def local(tmp_path, *rows, **fields):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return Local(path=str(path), **fields)


def test_a_pair_gives_kto_a_desirable_and_an_undesirable_row(tmp_path):
    rows = list(local(tmp_path, PAIR, use="kto").rows())
    assert rows == [
        {"prompt": user("Why?"), "completion": assistant("As."), "label": True},
        {"prompt": user("Why?"), "completion": assistant("No."), "label": False},
    ]
    assert check_rows(rows, "kto").rows == 2
    assert len(local(tmp_path, PAIR, PAIR, use="kto", limit=3).rows()) == 3


def test_a_pair_gives_sft_what_was_chosen(tmp_path):
    rows = list(local(tmp_path, PAIR, use="sft").rows())
    assert rows == [{"prompt": user("Why?"), "completion": assistant("As.")}]
    assert check_rows(rows, "sft").rows == 1


def test_pairs_are_the_default_and_serve_as_prompts(tmp_path):
    rows = local(tmp_path, PAIR).rows()
    assert list(rows) == list(local(tmp_path, PAIR, use="pairs").rows())
    for kind in ("preference", "reward_model", "ppo", "grpo"):
        assert check_rows(rows, kind).rows == 1


def test_what_tells_the_better_one_is_of_one_kind(tmp_path):
    told = [{"solution": 7, "score_chosen": 2.5}, {"solution": "x=3", "score_chosen": "good"}]
    rows = local(tmp_path, *(PAIR | each for each in told), PAIR | {"solution": [1]}).rows()
    assert rows["solution"] == ["7", "x=3", None]
    assert rows["score_chosen"] == [2.5, None, None]


def test_plain_pairs_have_the_same_uses(tmp_path):
    rows = local(tmp_path, PAIR, shape="plain-preference", use="kto").rows()
    assert rows["completion"] == ["As.", "No."]
    assert rows["prompt"] == ["Why?"] * 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PAIR | {"rejected": " As. "}, "with chosen and rejected the same"),
        (PAIR | {"chosen": " "}, "with an empty answer"),
        (PAIR | {"prompt": " "}, "with an empty turn in the prompt"),
        (
            {"chosen": user("a") + assistant("b"), "rejected": user("c") + assistant("d")},
            "with dialogues that open differently",
        ),
        (
            {"chosen": user("a") + assistant("b"), "rejected": user("a") + assistant(None)},
            "with an empty answer",
        ),
        (
            {"chosen": user("a") + assistant("b"), "rejected": user("a") + assistant("b ")},
            "with chosen and rejected the same",
        ),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b",
                "rejected": "\n\nHuman: c\n\nAssistant: d",
            },
            "with dialogues that open differently",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:"},
            "with an empty answer",
        ),
    ],
)
def test_a_useless_pair_of_a_public_set_is_left_out_by_reason(tmp_path, caplog, row, reason):
    good = dict(PAIR) if "prompt" in row else {key: PAIR[key] for key in ("chosen", "rejected")}
    if "prompt" not in row:
        kind = type(row["chosen"])
        for key in good:
            text = good[key]
            good[key] = (
                user("Why?") + assistant(text)
                if kind is list
                else f"\n\nHuman: Why?\n\nAssistant: {text}"
            )
    with caplog.at_level(logging.WARNING):
        rows = local(tmp_path, good, row).rows()
    assert rows["prompt"] == [user("Why?")]
    assert re.search(rf"left out 1 rows \(the first: the 2nd row of .*\): 1 {reason}$", caplog.text)


def test_trl_s_own_columns_pass_and_are_refused_by_the_validator(tmp_path):
    good = {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b")}
    bad = good | {"rejected": assistant("a")}
    rows = local(tmp_path, good, bad).rows()
    assert list(rows) == [good, bad]
    with pytest.raises(RowError, match="2nd row, column 'rejected': expected an answer other than"):
        check_rows(rows, "preference")


def test_answers_that_repeat_the_prompt_lose_it(tmp_path):
    head = [{"role": "system", "content": "s"}, *user("q")]
    row = {
        "prompt": head,
        "chosen": head + assistant("a"),
        "rejected": head + assistant("b"),
    }
    rows = local(tmp_path, row).rows()
    assert list(rows) == [{"prompt": head, "chosen": assistant("a"), "rejected": assistant("b")}]
    other = row | {"rejected": user("other") + assistant("b")}
    with pytest.raises(RowError, match=r"1st row, column 'chosen'.*the answer alone, without"):
        check_rows(local(tmp_path, other).rows(), "preference")


def test_a_plain_prompt_may_stand_beside_messages(tmp_path):
    answers = {"prompt": "q", "chosen": assistant("a"), "rejected": assistant("b")}
    whole = {"prompt": "q"} | {key: user("q") + answers[key] for key in ("chosen", "rejected")}
    expected = answers | {"prompt": user("q")}
    assert list(local(tmp_path, answers, whole).rows()) == [expected, expected]


def test_what_tells_the_better_answer_travels_along(tmp_path):
    told = {"margin": 0.5, "score_chosen": 7.0, "score_rejected": 6.5, "solution": "7"}
    rows = local(tmp_path, PAIR | told | {"source": "x"}).rows()
    assert rows.column_names == ["prompt", "chosen", "rejected", *told]
    assert rows["margin"] == [0.5]
    mixed = local(tmp_path, PAIR | {"margin": 0.5}, PAIR | {"chosen": "Or."}).rows()
    with pytest.raises(RowError, match=r"2nd row, column 'margin'.*null"):
        check_rows(mixed, "reward_model")
    with pytest.raises(RowError, match=r"2nd row, column 'margin': expected the same kind.*'high'"):
        local(tmp_path, PAIR | {"margin": 1}, PAIR | {"margin": "high"}).rows()


def test_labels_of_two_kinds_are_named_with_their_row(tmp_path):
    rows = [{"prompt": "q", "completion": "a", "label": label} for label in (None, True, "true")]
    with pytest.raises(RowError, match=r"3rd row, column 'label'.*2nd row, bool True.*str 'true'"):
        local(tmp_path, *rows).rows()


def test_a_use_that_pairs_do_not_have_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"use='openings' does not fit.*pairs, kto, sft"):
        local(tmp_path, PAIR, use="openings").rows()


def test_real_dialogues_join_again_to_what_they_were(shared_data):
    """Nothing is lost but the speaker's name where one speaker has two turns in a row."""
    path = shared_data / "hh_rlhf/harmless_base_test.jsonl"
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    raw = [row for row in raw if not row["chosen"].endswith("Assistant: ")]
    rows = HHRLHF(path=str(path)).rows()
    assert len(rows) == len(raw) == 2308
    changed = 0
    for row, source in zip(rows, raw, strict=True):
        for side in ("chosen", "rejected"):
            turns, speakers = row["prompt"] + row[side], SPEAKER.findall(source[side])
            text = "".join(each["content"] for each in turns)
            assert "".join(text.split()) == "".join(SPEAKER.sub("", source[side]).split())
            if len(turns) != len(speakers):
                assert any(one == other for one, other in pairwise(speakers))
                changed += 1
            else:
                assert [NAMES[each["role"]] for each in turns] == speakers
    assert changed == 13


def test_real_pairs_keep_prompt_and_answers(shared_data):
    for name in ("train_clean", "eval_clean"):
        path = shared_data / f"ultrafeedback/{name}.jsonl"
        raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = {
            (row["prompt"], row["chosen"].strip(), row["rejected"].strip())
            for row in raw
            if row["chosen"].strip() and row["rejected"].strip()
            if row["chosen"].strip() != row["rejected"].strip()
        }
        rows = data.UltraFeedback(path=str(path)).rows()
        assert {
            tuple(row[key][0]["content"] for key in ("prompt", "chosen", "rejected"))
            for row in rows
        } == kept
        assert all(len(row["prompt"]) == len(row["chosen"]) == 1 for row in rows)


def test_real_pairs_serve_every_stage_and_are_cut_in_two(shared_data):
    text = f"hh-rlhf?path={shared_data / 'hh_rlhf/harmless_base_test.jsonl'}"
    train, held = (
        data.resolve(f"{text}&split={split}").rows() for split in ("train[:80%]", "train[80%:]")
    )
    assert (len(train), len(held)) == (1846, 462)
    dumped = [{json.dumps(row["prompt"]) for row in rows} for rows in (train, held)]
    assert not dumped[0] & dumped[1]
    for use, kind, count in (("pairs", "ppo", 462), ("sft", "sft", 462), ("kto", "kto", 924)):
        rows = data.resolve(f"{text}&split=train[80%:]&use={use}").rows()
        assert check_rows(rows, kind).rows == len(rows) == count
    assert Counter(rows["label"]) == {True: 462, False: 462}
