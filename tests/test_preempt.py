"""SIGTERM asks for a checkpoint: at once while sampling, after the step while training."""

import json
import os
import signal
import subprocess

import psutil
import pytest
import runs

from align.processes.preempt import Preempted, Preemption

PREEMPTED = 143
STEPS = ("--steps", "5")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    _run(runs.grpo(out, *STEPS), out, expect=0)
    return out / "grpo"


def _run(args, folder, *, expect, **more):
    answer = runs.nursery().run("grpo", args, log=folder / "log", **more)
    text = (folder / "log").read_text()
    assert answer["codes"] == [expect], text
    return text


def _manifest(stage):
    """The newest checkpoint's."""
    newest = runs.checkpoints(stage)[-1]
    return json.loads((stage / "checkpoints" / newest / "manifest.json").read_text())


# With a refill round a step samples twice: call 2 k - 1 is the first of step k.
@pytest.mark.parametrize(
    ("call", "done"), [(1, 0), (2 * 2 - 1, 1), (2 * 3, 2), (2 * 5, 4)], ids=lambda value: str(value)
)
def test_while_sampling_it_saves_the_steps_beginning_and_exits_at_once(
    uninterrupted, tmp_path, call, done
):
    """Also in the very first step, before the optimizer has any moments."""
    marker = tmp_path / "marker"
    hurt = ["term_while_sampling", call, str(marker)]
    text = _run(runs.grpo(tmp_path, *STEPS), tmp_path, expect=PREEMPTED, hurt=hurt)
    assert "stopped by SIGTERM after a checkpoint; continue with --resume" in text
    assert not marker.exists()
    stage = tmp_path / "grpo"
    assert _manifest(stage)["step"] == done
    assert [row["step"] for row in runs.rows(stage / "metrics.jsonl")] == [*range(1, done + 1)]
    _run(runs.grpo(tmp_path, *STEPS, "--resume"), tmp_path, expect=0)
    runs.check_equal(stage, uninterrupted)


@pytest.mark.parametrize("step", [1, 3])
def test_between_minibatches_it_waits_for_the_end_of_the_step(uninterrupted, tmp_path, step):
    hurt = ["term_in_minibatch", 4 * step - 1]
    _run(runs.grpo(tmp_path, *STEPS), tmp_path, expect=PREEMPTED, hurt=hurt)
    stage = tmp_path / "grpo"
    assert _manifest(stage)["step"] == step
    assert _manifest(stage)["optimizer_step"] == 4 * step
    _run(runs.grpo(tmp_path, *STEPS, "--resume"), tmp_path, expect=0)
    runs.check_equal(stage, uninterrupted)


def test_in_the_last_step_the_run_is_finished_instead(uninterrupted, tmp_path):
    _run(runs.grpo(tmp_path, *STEPS), tmp_path, expect=0, hurt=["term_in_minibatch", 4 * 5])
    runs.check_equal(tmp_path / "grpo", uninterrupted)


def test_without_regular_checkpoints_there_still_is_one_on_sigterm(uninterrupted, tmp_path):
    args = runs.grpo(tmp_path, *STEPS, "--checkpoints.every", "0")
    _run(args, tmp_path, expect=PREEMPTED, hurt=["term_in_minibatch", 4 * 2])
    assert runs.checkpoints(tmp_path / "grpo") == ["step-000002"]
    _run([*args, "--resume"], tmp_path, expect=0)
    assert runs.checkpoints(tmp_path / "grpo") == ["step-000002"]
    runs.check_equal(tmp_path / "grpo", uninterrupted)


def test_two_processes_agree_to_stop_when_one_is_asked(tmp_path):
    """Both checkpoint after the same step; resumed, they end as if nothing had been."""
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    options = {"log": tmp_path / "log", "ranks": 2}
    args = runs.grpo(tmp_path / "stopped", *STEPS)
    hurt = ["term_on_rank_1", 4 * 2]
    for order, expect, more in (
        (runs.grpo(tmp_path / "whole", *STEPS), 0, {}),
        (args, PREEMPTED, {"hurt": hurt}),
        ([*args, "--resume"], 0, {}),
    ):
        answer = runs.nursery().run("grpo", order, **options, **more)
        assert answer["codes"] == [expect] * 2, (tmp_path / "log").read_text()
    assert "resumed after step 2" in (tmp_path / "log").read_text()
    runs.check_equal(tmp_path / "stopped" / "grpo", tmp_path / "whole" / "grpo")


@pytest.mark.slow
def test_when_the_launcher_is_killed_the_run_checkpoints_and_exits(uninterrupted, tmp_path):
    """SIGKILL to `accelerate launch` alone: the kernel tells the child."""
    command = [*runs.LAUNCH, "--cpu", "--num_processes", "1"]
    command += [runs.REPOSITORY / "scripts" / "grpo.py", *runs.grpo(tmp_path, "--steps", "500")]
    metrics = tmp_path / "grpo" / "metrics.jsonl"
    with (tmp_path / "log").open("w") as log:
        launcher = subprocess.Popen(
            command, cwd=tmp_path, env=runs.environment(), stdout=log, stderr=log
        )
        runs.wait_for(
            lambda: launcher.poll() is not None or (metrics.exists() and metrics.read_bytes()),
            what="a first step",
        )
        assert launcher.poll() is None, (tmp_path / "log").read_text()
        (child,) = psutil.Process(launcher.pid).children()
        launcher.kill()
        assert launcher.wait() == -signal.SIGKILL
        _, alive = psutil.wait_procs([child], timeout=60)
    assert alive == []
    assert "stopped by SIGTERM after a checkpoint" in (tmp_path / "log").read_text()
    stage = tmp_path / "grpo"
    step = _manifest(stage)["step"]
    assert 0 < step < 500
    assert [row["step"] for row in runs.rows(stage / "metrics.jsonl")] == [*range(1, step + 1)]


def test_it_breaks_in_only_where_it_is_let():
    preemption = Preemption()
    os.kill(os.getpid(), signal.SIGTERM)
    assert preemption.asked  # and nothing was raised
    with pytest.raises(Preempted), preemption.interruptible():
        pytest.fail("one that came before raises at the start")


def test_it_breaks_in_once():
    preemption = Preemption()
    reached = []
    with pytest.raises(Preempted), preemption.interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("sampled on")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one while the first unwinds
            reached.append("cleaned up")
    assert reached == ["cleaned up"]
    os.kill(os.getpid(), signal.SIGTERM)  # outside again


def test_no_handler_of_exceptions_swallows_it():
    assert not issubclass(Preempted, Exception)
