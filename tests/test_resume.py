"""A run that is killed and resumed ends as one that was not: same weights, same logs."""

import json
import os
import random
import signal
import subprocess

import psutil
import pytest
import runs

KILLS = 10


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A 12-step GRPO run that nothing happened to: (its folder, seconds it took)."""
    out = tmp_path_factory.mktemp("uninterrupted")
    asked = out / "asked.jsonl"
    _finish("grpo", runs.grpo(out), out, hurt=["record_judged", str(asked)])
    # From here on the judge's answers are remembered, so that a run takes what training takes.
    assert runs.nursery().ask(judge=str(asked)) > 12 * 4 * 4
    again = tmp_path_factory.mktemp("again")
    seconds = _finish("grpo", runs.grpo(again), again)["seconds"]
    runs.check_equal(again / "grpo", out / "grpo")
    return out / "grpo", seconds


def _finish(kind, args, folder, **more):
    answer = runs.nursery().run(kind, args, log=folder / "log", **more)
    assert answer["codes"] == [0] * len(answer["codes"]), (folder / "log").read_text()
    return answer


def _kill(folder, args, **more):
    answer = runs.nursery().run("grpo", args, log=folder / "log", **more)
    assert answer["codes"] == [-signal.SIGKILL], (folder / "log").read_text()


@pytest.mark.slow
def test_killed_at_ten_random_moments_ten_runs_end_with_the_weights_of_the_uninterrupted_one(
    uninterrupted, tmp_path
):
    """Each moment lies in its own tenth of the run, loading at its start and export at its end."""
    reference, seconds = uninterrupted
    assert len(runs.rows(reference / "metrics.jsonl")) == 12
    chance = random.Random(20261120)
    resumed_after = []
    for i in range(KILLS):
        folder = tmp_path / str(i)
        folder.mkdir()
        moment = seconds * 0.95 * (i + chance.random()) / KILLS
        answer = {"codes": [0]}
        while answer["codes"] == [0]:  # an idle machine may let a run end before its moment
            subprocess.run(["rm", "-r", "-f", folder / "grpo"], check=True)
            answer = runs.nursery().run(
                "grpo", runs.grpo(folder), log=folder / "log", kill_after=moment
            )
            moment *= 0.8
        assert answer["codes"] == [-signal.SIGKILL], (folder / "log").read_text()
        _finish("grpo", runs.grpo(folder, "--resume"), folder)
        runs.check_equal(folder / "grpo", reference)
        found = [line for line in (folder / "log").read_text().splitlines() if "resumed" in line]
        resumed_after += found or ["the start"]
    assert len(set(resumed_after)) > 2, resumed_after  # the kills did fall into different places


def test_killed_again_and_again_it_still_ends_the_same(uninterrupted, tmp_path):
    reference, _ = uninterrupted
    assert runs.rows(reference / "watch.jsonl")  # it has warned, so what is compared is not empty
    for step in (15, 9, 7):
        _kill(tmp_path, runs.grpo(tmp_path, "--resume"), hurt=["between_minibatches", step])
    _finish("grpo", runs.grpo(tmp_path, "--resume"), tmp_path)
    runs.check_equal(tmp_path / "grpo", reference)


@pytest.mark.parametrize(
    ("hurt", "newest"),
    [
        (["while_writing", 3], "step-000004"),
        (["before_rename", 3], "step-000004"),
        (["after_rename", 3], "step-000006"),
        (["between_minibatches", 4 * 7 + 3], "step-000006"),
        (["during_export"], "step-000010"),
        (["after_export"], "step-000010"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_killed_at_the_worst_places(uninterrupted, tmp_path, hurt, newest):
    reference, _ = uninterrupted
    _kill(tmp_path, runs.grpo(tmp_path), hurt=hurt)
    stage = tmp_path / "grpo"
    assert runs.checkpoints(stage)[-1] == newest
    assert not (stage / "done.json").exists()
    assert (stage / "model").exists() == (hurt == ["after_export"])
    _finish("grpo", runs.grpo(tmp_path, "--resume"), tmp_path)
    runs.check_equal(stage, reference)
    assert len(runs.checkpoints(stage)) == 2
    leftovers = [path for path in stage.rglob("*") if path.name.endswith(".partial")]
    assert leftovers == []


@pytest.mark.parametrize(
    "more",
    [
        ("--lora.rank", "4", "--lora.dropout", "0.1"),
        ("--beta", "0.05", "--kl-every", "2"),
        ("--advantage", "reinforce++", "--objective", "gspo", "--optim.schedule", "cosine"),
    ],
    ids=["lora", "reference", "gspo"],
)
def test_other_settings_resume_exactly_too(tmp_path, more):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    short = [*more, "--steps", "5"]
    _finish("grpo", runs.grpo(tmp_path / "whole", *short), tmp_path)
    _kill(tmp_path, runs.grpo(tmp_path / "killed", *short), hurt=["between_minibatches", 15])
    _finish("grpo", runs.grpo(tmp_path / "killed", *short, "--resume"), tmp_path)
    assert "resumed after step 2" in (tmp_path / "log").read_text()
    runs.check_equal(tmp_path / "killed" / "grpo", tmp_path / "whole" / "grpo")


def test_sft_resumes_exactly_too(tmp_path):
    def args(name, *more):
        return ["--recipe", "tiny", "--out", tmp_path / name, "--epochs", "2.5", *more]

    _finish("sft", args("whole"), tmp_path)
    answer = runs.nursery().run(
        "sft", args("killed"), log=tmp_path / "log", hurt=["between_minibatches", 8]
    )
    assert answer["codes"] == [-signal.SIGKILL]
    _finish("sft", args("killed", "--resume"), tmp_path)
    assert "resumed after step 6" in (tmp_path / "log").read_text()
    runs.check_equal(tmp_path / "killed" / "sft", tmp_path / "whole" / "sft")


@pytest.mark.slow
@pytest.mark.long
def test_launched_by_accelerate_and_killed_as_a_whole(uninterrupted, tmp_path):
    """From a cold start, with SIGKILL to the whole process group."""
    reference, _ = uninterrupted
    command = [*runs.LAUNCH, "--cpu", "--num_processes", "1"]
    command += [runs.REPOSITORY / "scripts" / "grpo.py"]
    metrics = tmp_path / "grpo" / "metrics.jsonl"
    with (tmp_path / "log").open("w") as log:
        options = {"cwd": tmp_path, "env": runs.environment(), "stdout": log, "stderr": log}
        first = subprocess.Popen(
            [*command, *runs.grpo(tmp_path)], start_new_session=True, **options
        )
        runs.wait_for(
            lambda: (
                first.poll() is not None
                or (metrics.exists() and len(metrics.read_bytes().splitlines()) >= 5)
            ),
            what="five steps",
        )
        assert first.poll() is None, (tmp_path / "log").read_text()
        family = psutil.Process(first.pid).children(recursive=True)
        os.killpg(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []  # the reward's workers included
        assert not (tmp_path / "grpo" / "done.json").exists()
        second = subprocess.run([*command, *runs.grpo(tmp_path, "--resume")], **options)
    assert second.returncode == 0, (tmp_path / "log").read_text()
    runs.check_equal(tmp_path / "grpo", reference)


def test_a_complete_stage_is_not_run_again(uninterrupted, tmp_path):
    reference, _ = uninterrupted
    before = json.loads((reference / "done.json").read_text())
    args = runs.grpo(reference.parent, "--resume")
    _finish("grpo", args, tmp_path)
    assert f"{reference} is complete already" in (tmp_path / "log").read_text()
    assert json.loads((reference / "done.json").read_text()) == before
