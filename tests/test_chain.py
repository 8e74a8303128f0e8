"""All stages of a recipe by one command: interrupted, resumed, reused."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import runs

from align.files.lock import locked

STEPS = 40
LAUNCHER = runs.REPOSITORY / "recipes" / "accelerate" / "cpu.yaml"
FLAGS = ("--grpo.steps", str(STEPS), "--evaluation.limit", "4", "--sft.optim.lr", "1e-3")


def _chain(out, *more):
    script = runs.REPOSITORY / "scripts" / "run.py"
    return [sys.executable, script, "--recipe", "tiny", "--out", out, *more]


def _call(out, *more, cwd):
    options = {"cwd": cwd, "env": runs.environment(), "capture_output": True, "text": True}
    return subprocess.run(_chain(out, *more), **options)


def _times(folder):
    """When each file was written, but for those that name the process at work."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".pid"]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A chain that got SIGTERM inside its second stage, under a launcher, and was called again,
    without one.

    (folder, what the first call printed, its exit code, what the second printed)
    """
    folder = tmp_path_factory.mktemp("chain")
    metrics = folder / "run" / "grpo" / "metrics.jsonl"
    with (folder / "log").open("w") as log:
        first = subprocess.Popen(
            _chain("run", *FLAGS, "--accelerate", LAUNCHER),
            cwd=folder, env=runs.environment(), stdout=log, stderr=log,
        )  # fmt: skip
        runs.wait_for(
            lambda: first.poll() is not None or (metrics.exists() and metrics.read_bytes()),
            seconds=300,
            what="GRPO's first step",
        )
        assert first.poll() is None, (folder / "log").read_text()
        family = psutil.Process(first.pid).children(recursive=True)
        trainers = [process for process in family if "grpo.py" in " ".join(process.cmdline())]
        first.terminate()
        code = first.wait()
        left = [process for process in trainers if process.is_running()]
    assert len(trainers) == 2, trainers  # the launcher and what it launched
    second = _call("run", *FLAGS, cwd=folder)
    assert second.returncode == 0, second.stderr
    return folder, (folder / "log").read_text(), code, left, second.stdout


@pytest.mark.slow
def test_sigterm_ends_it_after_the_running_stages_checkpoint(chain):
    """When the command is gone so are its processes: a scheduler may take the machine away."""
    _, first, code, left, _ = chain
    assert code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after a checkpoint" in first
    assert left == []


def test_both_models_evaluations_and_the_report_are_there(chain):
    folder = chain[0] / "run"
    for stage in ("sft", "grpo"):
        assert (folder / stage / "model" / "model.safetensors").is_file()
        assert runs.finished(folder / stage)
        summary = json.loads((folder / "evaluations" / f"{stage}.json").read_text())
        assert (summary["label"], summary["n"]) == (stage, 4)
        assert summary["model"] == f"run/{stage}/model"
        assert len(runs.rows(folder / "evaluations" / f"{stage}.jsonl")) == 4
    assert "<html" in (folder / "report.html").read_text()
    about = json.loads((folder / "recipe.json").read_text())
    assert about == {"recipe": "tiny", "stages": ["sft", "grpo"]}


def test_overrides_reach_their_stage(chain):
    folder = chain[0] / "run"
    grpo = json.loads((folder / "grpo" / "config.json").read_text())
    sft = json.loads((folder / "sft" / "config.json").read_text())
    assert (grpo["steps"], grpo["optim"]["lr"]) == (STEPS, 1e-3)
    assert (sft["optim"]["lr"], sft["batch"]) == (1e-3, 8)
    assert len(runs.rows(folder / "grpo" / "metrics.jsonl")) == STEPS


def test_the_second_call_reuses_and_resumes(chain):
    _, first, _, _, second = chain
    assert "run  sft: first run" in first
    assert "reuse  sft: complete and unchanged" in second
    assert "resume  grpo <- sft: interrupted" in second
    assert "resumed after step" in second
    told = "grpo: evaluating on evaluation (arithmetic), at most 4 problems"
    assert told in second.splitlines()
    assert "report: run/report.html" in second


def test_the_interrupted_chain_ends_as_one_that_was_not(chain, tmp_path):
    folder = chain[0] / "run"
    args = ["--recipe", "tiny", "--model", folder / "sft" / "model", "--steps", STEPS]
    answer = runs.nursery().run("grpo", [*args, "--out", tmp_path], log=tmp_path / "log")
    assert answer["codes"] == [0], (tmp_path / "log").read_text()
    runs.check_equal(folder / "grpo", tmp_path / "grpo")


def test_a_third_call_starts_nothing_and_takes_less_than_3_s(chain):
    """Of processor time: the clock depends on what else the machine does."""
    folder = chain[0]
    before = _times(folder / "run")
    begun = time.monotonic()
    code, said, wrong, seconds = runs.timed(_chain("run", *FLAGS), folder)
    assert (code, wrong) == (0, "")
    assert seconds < 3.0
    assert time.monotonic() - begun < 15.0  # it waits for nothing
    for stage in ("sft:", "grpo <- sft:"):
        assert f"reuse  {stage} complete and unchanged" in said
    assert "nothing to do; report: run/report.html" in said
    assert _times(folder / "run") == before


def test_a_look_says_what_would_run_and_why(chain):
    folder = chain[0]
    changed = [*FLAGS, "--grpo.optim.lr", "2e-3"]
    listed = _call("run", *changed, "--list", cwd=folder)
    assert listed.stdout.splitlines()[0] == "    reuse  sft: complete and unchanged"
    assert "run again  grpo <- sft: optim.lr: 0.001 -> 0.002" in listed.stdout
    told = "evaluating on evaluation (arithmetic), at most 4 problems"
    assert f"    reuse  sft: {told}\n" in listed.stdout
    assert listed.stdout.endswith(f"      run  grpo: {told}\n")
    dry = _call("run", *changed, "--dry-run", cwd=folder)
    (command,) = [line for line in dry.stdout.splitlines() if "grpo.py" in line]
    assert command.endswith("--optim.lr 2e-3 --resume")
    assert dry.stdout.endswith("--model @grpo --label grpo --limit 4\n")
    assert (folder / "run" / "grpo" / "done.json").is_file()
    assert _call("run", "--list", "--only", "gpro", cwd=folder).stderr == (
        "error: recipe tiny has no stage called 'gpro' (there are: sft, grpo)\n"
    )


@pytest.mark.slow
def test_a_changed_stage_runs_again_and_those_above_do_not(chain, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(chain[0], folder)
    before = _times(folder / "run" / "sft")
    old = runs.finished(folder / "run" / "grpo")
    done = _call("run", *FLAGS, "--grpo.steps", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "reuse  sft: complete and unchanged" in done.stdout
    assert "sft: evaluation is there already, reused" in done.stdout
    assert _times(folder / "run" / "sft") == before
    assert len(runs.rows(folder / "run" / "grpo" / "metrics.jsonl")) == 2
    assert runs.finished(folder / "run" / "replaced" / "grpo") == old
    summary = json.loads((folder / "run" / "evaluations" / "grpo.json").read_text())
    assert summary["weights"] == runs.finished(folder / "run" / "grpo") != old
    about = json.loads((folder / "run" / "chain.json").read_text())
    assert [(n["stage"], n["action"]) for n in about["nodes"]] == [
        ("sft", "reused"), ("grpo", "ran again"),
    ]  # fmt: skip


def test_ctrl_c_in_a_check_says_one_cure_and_that_of_the_chain(tmp_path):
    with (tmp_path / "log").open("w") as log:
        check = subprocess.Popen(
            _chain("run", "--check"),
            cwd=tmp_path,
            env=runs.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        said = (tmp_path / "log").read_text
        runs.wait_for(lambda: "sft (sft) from" in said(), seconds=120, what="the check of sft")
        os.killpg(check.pid, signal.SIGINT)  # as a terminal does
        assert check.wait(timeout=60) == 128 + signal.SIGINT
    (line,) = [line for line in said().splitlines() if "Ctrl-C" in line]
    script = runs.REPOSITORY / "scripts" / "run.py"
    assert line.endswith(f"again: python {script} --recipe tiny --out run --check")


def test_two_runs_of_one_folder_are_refused(chain):
    with locked(chain[0] / "run"):
        second = _call("run", *FLAGS, cwd=chain[0])
    assert second.returncode == 2
    held = f"another run (process {os.getpid()} on {socket.gethostname()}) is at work in run"
    assert held in second.stderr


def test_sigterm_begins_no_next_stage_where_the_child_ends_well():
    """As a stage does that gets it in its last step."""
    child = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "time.sleep(0.5)\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    code = (
        "import sys\n"
        "from align.chain.launch import call\n"
        "call([sys.executable, '-c', sys.argv[1]], launched=False)\n"
        "print('the next stage')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, child],
        cwd=runs.REPOSITORY,
        env=runs.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")


def test_check_validates_what_can_be_validated_and_writes_nothing(tmp_path):
    done = _call("run", "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sft (sft) from random:recipes/tiny_model" in done.stdout
    assert "grpo: its 40 rows fit; its model is still to be trained" in done.stdout
    assert "\nchecked: nothing stands in the way of sft\n" in done.stdout
    assert done.stdout.endswith("\nchecked: nothing stands in the way of this run\n")
    assert not (tmp_path / "run").exists()


def test_a_chain_without_its_first_model_ends_with_a_sentence(tmp_path):
    done = _call("run", "--sft.model", "./none", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ("error: there is no model folder ./none; give one with --model FOLDER\n")
    assert not (tmp_path / "run").exists()


def test_a_stage_that_fails_ends_the_chain_with_its_message(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "1 + 1", "solution": "2"}) + "\n")
    done = _call("run", "--sft.data", rows, cwd=tmp_path)
    assert done.returncode == 2  # the stage's own
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "completion" in said
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "grpo").exists()
