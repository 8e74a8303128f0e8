"""Rejection sampling end to end: killed and resumed, in two processes, and what it writes."""

import hashlib
import json
import re
import shutil
import signal
import threading
import time

import pytest
import runs
import tiny
from stand_in import StandIn, completion

import data

PREEMPTED = 143


def _run(out, *more, stage="sample", harm=(), ranks=1, expect=0):
    """The log of a run that ends with this code."""
    out.mkdir(exist_ok=True)
    answer = runs.nursery().run(
        "sample",
        ["--recipe", "tiny", "--stage", stage, "--out", out, *more],
        log=out / "log",
        hurt=["sampled_recipe.add", *harm],
        ranks=ranks,
    )
    text = (out / "log").read_text()
    (out / "log").unlink()
    assert answer["codes"] == [expect] * ranks, text
    return text


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to: 20 prompts in batches of 6."""
    out = tmp_path_factory.mktemp("whole")
    _run(out)
    return out / "sample"


def _same(stage, reference):
    assert (stage / "sampled.jsonl").read_bytes() == (reference / "sampled.jsonl").read_bytes()
    assert (stage / "data.jsonl").read_bytes() == (reference / "data.jsonl").read_bytes()
    assert (stage / "done.json").read_bytes() == (reference / "done.json").read_bytes()
    assert runs.logs(stage) == runs.logs(reference)


def _lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_written(whole):
    lines, rows = _lines(whole / "sampled.jsonl"), _lines(whole / "data.jsonl")
    done = json.loads((whole / "done.json").read_text())
    assert [line["row"] for line in lines] == [*range(20)]
    assert {len(line["samples"]) for line in lines} == {8}
    seeds = [sample["seed"] for line in lines for sample in line["samples"]]
    assert len(set(seeds)) == 160
    assert done["rows"] == len(rows) == done["samples"]["kept"] > 3
    assert done["data"] == hashlib.sha256((whole / "data.jsonl").read_bytes()).hexdigest()
    assert sum(done["samples"].values()) == 160
    with_one = {row["provenance"]["row"] for row in rows}
    assert done["prompts_without_a_kept_sample"] == 20 - len(with_one) > 0
    for row in rows:
        origin = row["provenance"]
        sample = lines[origin["row"]]["samples"][origin["sample"]]
        assert row["messages"][:-1] == lines[origin["row"]]["prompt"]
        assert row["messages"][-1] == {"role": "assistant", "content": sample["text"]}
        assert row["solution"] == lines[origin["row"]]["solution"]
        assert not sample["truncated"]
        assert origin["seed"] == sample["seed"]
        assert origin["stage"] == "sample" and origin["data"] == "arithmetic"


def test_its_rows_are_read_as_any_data_are(whole):
    rows = data.resolve(str(whole / "data.jsonl")).rows()
    report = data.validate.check_rows(rows, "sft")
    assert report.rows == json.loads((whole / "done.json").read_text())["rows"]
    assert [row["solution"] for row in rows] == [
        row["solution"] for row in _lines(whole / "data.jsonl")
    ]


def test_the_logs_say_what_became_of_each_sample(whole):
    metrics, samples = runs.logs(whole)
    done = json.loads((whole / "done.json").read_text())
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    assert [row["samples"] for row in metrics] == [48, 48, 48, 16]
    for name, count in done["samples"].items():
        key = "kept" if name == "kept" else f"rejected/{name}"
        assert sum(row.get(key, 0) for row in metrics) == count
        reason = None if name == "kept" else name
        assert sum(row["reason"] == reason for row in samples) == count
    assert all(row["kept"] == (row["reason"] is None) for row in samples)
    assert metrics[0]["truncated"] == sum(row["truncated"] for row in samples[:48]) / 48


@pytest.mark.parametrize(
    "harm",
    [
        ("killed_while_writing", 1),
        ("killed_while_writing", 3),
        ("killed_before_logging", 2),
        ("killed_before_done",),
    ],
    ids=lambda harm: "-".join(map(str, harm)),
)
def test_killed_and_resumed_it_ends_as_if_nothing_had_been(whole, tmp_path, harm):
    _run(tmp_path, harm=harm, expect=-signal.SIGKILL)
    assert not (tmp_path / "sample" / "done.json").exists()
    _run(tmp_path, "--resume")
    _same(tmp_path / "sample", whole)


@pytest.mark.parametrize(("harm", "left"), [(("term_while_starting",), 0), (("term", 2), 6)])
def test_sigterm_ends_it_at_once(whole, tmp_path, harm, left):
    """While the sampler starts, and within a batch, nothing of which is written."""
    text = _run(tmp_path, harm=harm, expect=PREEMPTED)
    assert "continue with --resume" in text
    stage = tmp_path / "sample"
    assert len(_lines(stage / "sampled.jsonl")) == left
    _run(tmp_path, "--resume")
    _same(stage, whole)
    assert "complete already" in _run(tmp_path, "--resume")


def test_complete_without_its_rows_it_says_how_they_are_written_again(whole, tmp_path):
    stage = shutil.copytree(whole, tmp_path / "run" / "sample")
    (stage / "data.jsonl").unlink()
    text = _run(tmp_path / "run", "--resume", expect=2)
    assert f"{stage}/data.jsonl is gone" in text and f"delete {stage}/done.json" in text
    (stage / "done.json").unlink()
    _run(tmp_path / "run", "--resume", harm=("without_a_sampler",))
    _same(stage, whole)


def test_two_processes_draw_what_one_draws(whole, tmp_path):
    """Texts are equal; log-probs, which rounding moves, are not written. SIGTERM to one of them
    waits for the end of the batch.
    """
    _run(tmp_path, ranks=2, harm=("term", 3, 1), expect=PREEMPTED)
    assert len(_lines(tmp_path / "sample" / "sampled.jsonl")) == 18
    _run(tmp_path, "--resume", ranks=2)
    _same(tmp_path / "sample", whole)


def test_other_rules_choose_again_and_sample_nothing(whole, tmp_path):
    """Too strict at first: the error has the counts; looser, the ledger is all that is needed."""
    text = _run(tmp_path, "--keep.min-reward", "1", expect=2)
    assert "not one of 160 samples was kept" in text
    assert "low_reward: lower --keep.min-reward" in text
    never = {"harm": ("without_a_sampler",)}
    _run(tmp_path, "--resume", **never)
    _same(tmp_path / "sample", whole)
    _run(tmp_path, "--resume", "--keep.take", "best", "--keep.per-prompt", "3", **never)
    again = json.loads((tmp_path / "sample" / "done.json").read_text())
    assert again["rows"] > json.loads((whole / "done.json").read_text())["rows"]
    text = _run(tmp_path, "--resume", "--samples", "4", expect=2)
    assert "begun with other values (samples: 8 -> 4)" in text


def test_general_rows_are_mixed_in_at_their_share(whole, tmp_path):
    kept = len(_lines(whole / "data.jsonl"))
    general = "arithmetic?size=40&seed=5"
    _run(tmp_path, "--general", general, "--general-share", "0.5", "--write", "parquet")
    rows = _lines(tmp_path / "sample" / "data.jsonl")
    assert len(rows) == 2 * kept
    origins = [row["provenance"] for row in rows]
    assert sum("sample" not in origin for origin in origins) == kept
    assert ["sample" in origin for origin in origins[:4]] in ([True, False] * 2, [False, True] * 2)
    assert data.validate.check_rows(rows, "sft").rows == 2 * kept
    parquet = data.resolve(str(tmp_path / "sample" / "data.parquet")).rows()
    assert parquet["messages"] == data.resolve(
        str(tmp_path / "sample" / "data.jsonl")).rows()["messages"]  # fmt: skip
    text = _run(tmp_path, "--resume", "--general", general, "--general-share", "0.95", expect=2)
    assert f"takes {19 * kept} general rows, and arithmetic has 40" in text


def test_check_says_what_would_be_done_and_writes_nothing(tmp_path):
    text = _run(tmp_path, "--check", "--limit", "7")
    assert "7 of 20, in 2 batches" in text
    assert "56 (8 a prompt, at most 1 kept)" in text
    assert not (tmp_path / "sample").exists()


def test_few_shot_and_cleaning_change_what_is_asked_and_written(tmp_path):
    """Random texts hold an answer by chance; the rows hold the plain prompt."""
    asked = [
        int(re.search(r"tokens +([\d,]+) of prompts", text)[1].replace(",", ""))
        for text in (
            _run(tmp_path, "--check"),
            _run(tmp_path, "--check", stage="cold"),
        )
    ]
    assert asked[1] > 2 * asked[0]
    _run(tmp_path, stage="cold")
    lines = _lines(tmp_path / "cold" / "sampled.jsonl")
    rows = _lines(tmp_path / "cold" / "data.jsonl")
    assert json.loads((tmp_path / "cold" / "done.json").read_text())["samples"]["unclean"] > 3
    assert data.validate.check_rows(rows, "sft").rows == len(rows) > 3
    for row in rows:
        question, answer = row["messages"]
        assert question["content"].startswith("Compute") and len(question["content"]) < 20
        assert answer["content"].startswith("<think>")
        sample = lines[row["provenance"]["row"]]["samples"][row["provenance"]["sample"]]
        assert sample["text"] == answer["content"] != sample["raw"]
        assert row["provenance"]["length"] == len(answer["content"])  # characters are tokens


@pytest.fixture
def teacher():
    """A server whose answers hold their seed; a third of them are cut."""
    tokenizer = tiny.chat_tokenizer()
    made = StandIn(tokenizer)

    def answer(body):
        made.bodies.append(body)
        cut, text = body["seed"] % 3 == 0, f"sum {body['seed']}"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return completion(ids[:6], "length") if cut else completion([*ids, 2])

    made.routes["/v1/completions"] = answer
    yield made
    made.close()


def test_a_server_is_asked_to_reflect_and_the_rows_hold_the_plain_prompt(teacher, tmp_path):
    _run(tmp_path, "--engine.url", teacher.url, stage="reflect")
    stage = tmp_path / "reflect"
    lines, rows = _lines(stage / "sampled.jsonl"), _lines(stage / "data.jsonl")
    assert len(teacher.bodies) == 96
    tokenizer = tiny.chat_tokenizer()
    asked = {body["seed"]: tokenizer.decode(body["prompt"]) for body in teacher.bodies}
    for line in lines:
        (turn,) = line["prompt"]
        expected = (
            "<|im_start|>system\nThink, then check.<|im_end|>\n"
            f"<|im_start|>user\n{turn['content']}<|im_end|>\n<|im_start|>assistant\n"
        )
        for sample in line["samples"]:
            seed = sample["seed"]
            assert asked[seed] == expected
            assert sample["truncated"] == (seed % 3 == 0)
            assert sample["text"] == (f"sum {seed}"[:6] if seed % 3 == 0 else f"sum {seed}")
    assert len(rows) == 12
    for row in rows:
        question, answer = row["messages"]
        assert [question] == lines[row["provenance"]["row"]]["prompt"]
        assert answer["content"] == f"sum {row['provenance']['seed']}"


def test_sigterm_does_not_wait_for_a_server_and_resumed_it_ends_the_same(teacher, tmp_path):
    """The second batch's first answers do not come; the rest of it is never asked for."""
    answer, over = teacher.routes["/v1/completions"], threading.Event()

    def slow(body):
        with teacher.lock:
            late = len(teacher.bodies) >= 48
            found = answer(body)
        if late:
            over.wait(300)
        return found

    url = ("--engine.url", teacher.url)
    for out in ("whole", "stopped"):
        (tmp_path / out).mkdir()
    _run(tmp_path / "whole", *url, stage="reflect")
    teacher.bodies.clear()
    teacher.routes["/v1/completions"] = slow
    begun = time.monotonic()
    _run(tmp_path / "stopped", *url, stage="reflect", harm=("term_while_waiting", 49),
         expect=PREEMPTED)  # fmt: skip
    assert time.monotonic() - begun < 200
    over.set()
    assert len(_lines(tmp_path / "stopped" / "reflect" / "sampled.jsonl")) == 6
    teacher.routes["/v1/completions"] = answer
    _run(tmp_path / "stopped", *url, "--resume", stage="reflect")
    _same(tmp_path / "stopped" / "reflect", tmp_path / "whole" / "reflect")
