"""A distillation run that is killed and resumed ends as one that was not; two processes train what
one trains; a teacher of another tokenizer is refused before any work.

The runs are those of the recipe `tiny-distill`; its teacher is made once.
"""

import shutil
import signal

import pytest
import runs
import tiny
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig

SAME = ("loss", "grad_norm", "tokens", "kl/forward", "kl/reverse", "entropy", "length", "on_policy")


def go(out, *more, kind="distill", code=0, **extra):
    log = out / "log"
    args = ["--recipe", "tiny-distill", "--out", out, *more]
    answer = runs.nursery().run(kind, args, log=log, **extra)
    assert set(answer["codes"]) == {code}, log.read_text()
    return log.read_text()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run folder with the stage that the student comes from, and follows."""
    out = tmp_path_factory.mktemp("teacher")
    go(out, kind="sft")
    return out


@pytest.fixture(scope="module")
def fresh(teacher, tmp_path_factory):
    """A run folder in which that stage is done: the fixture is a function."""

    def made():
        out = tmp_path_factory.mktemp("run")
        shutil.copytree(teacher / "sft", out / "sft")
        return out

    return made


@pytest.mark.parametrize(
    "more",
    [(), ("--lora.rank", "4", "--optim.lr", "1e-2", "--on-policy", "0.75", "--beta", "1.0")],
    ids=["whole", "lora"],
)
def test_killed_and_resumed_it_ends_as_the_uninterrupted_one(more, fresh):
    whole, out = fresh(), fresh()
    go(whole, *more)
    kills = [["while_writing", 2], ["between_minibatches", 2], ["after_export"]]
    for hurt in kills[1:] if more else kills:
        go(out, "--resume", *more, hurt=hurt, code=-signal.SIGKILL)
    go(out, "--resume", *more)
    runs.check_equal(out / "distill", whole / "distill")
    assert runs.checkpoints(out / "distill") == runs.checkpoints(whole / "distill")
    rows = runs.rows(whole / "distill" / "metrics.jsonl")
    assert rows[-1]["kl/forward"] < rows[0]["kl/forward"]
    assert {row["on_policy"] for row in rows} <= {0.5, 0.75}


@pytest.mark.parametrize(
    "more",
    [("--prompts", "3"), ("--compute.layout", "padded", "--prompts", "1")],
    ids=["3 prompts", "padded, 1 prompt"],
)
def test_two_processes_train_what_one_trains(more, fresh):
    """3 prompts give the second process fewer than the first, 1 prompt gives it none."""
    stages = []
    for ranks in (1, 2):
        out = fresh()
        go(out, "--steps", "3", "--optim.eps", "1e-3", *more, ranks=ranks)
        stages.append(out / "distill")
    one, two = (load_file(stage / "model" / "model.safetensors") for stage in stages)
    for name, expected in one.items():
        assert (two[name] - expected).abs().max() < 1e-5 * expected.abs().max(), name
    mine, theirs = (runs.rows(stage / "metrics.jsonl") for stage in stages)
    for row, expected in zip(mine, theirs, strict=True):
        for name in SAME:
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    assert max(row["grad_norm"] for row in mine) > 1e-3
    named = [
        {(r["step"], r["prompt_index"], r["sample"]): r for r in runs.rows(s / "samples.jsonl")}
        for s in stages
    ]
    assert named[0] == named[1]


def test_a_teacher_of_another_tokenizer_is_refused_before_any_work(fresh, tmp_path):
    out = fresh()
    other = AutoTokenizer.from_pretrained(tiny.CHAT_FOLDER)
    other.add_tokens(["<more>"])
    tiny.model(LlamaConfig, vocab_size=101).save_pretrained(tmp_path / "teacher")
    other.save_pretrained(tmp_path / "teacher")
    said = go(out, "--teacher", str(tmp_path / "teacher"), code=2)
    assert "has another tokenizer than the student" in said
    assert "id 100 is no token here and '<more>' there" in said
    assert not (out / "distill" / "metrics.jsonl").exists()


def test_a_check_trains_nothing_and_says_what_would(fresh):
    out = fresh()
    said = go(out, "--check")
    assert "16 of the student's" not in said and "32 of the student's, 16 of the data's" in said
    assert "teacher  80,448 parameters" in said
    assert not (out / "distill").exists()
