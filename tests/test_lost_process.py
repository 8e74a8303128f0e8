"""One of two processes is killed or hangs: both end within a minute, the cause is named, and the
run goes on where its checkpoint was.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import runs
from torch import distributed

from align.config import Compute, ConfigError
from align.processes import lost

ARGS = ["--recipe", "tiny", "--model", "random:recipes/tiny_model", "--steps", "30"]
CONFIGS = runs.REPOSITORY / "recipes" / "accelerate"
ALL = 60.0  # seconds within which everything must have ended


def process(rank, out):
    """The pid of one process of the run."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environ = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(out).encode() in command and f"RANK={rank}".encode() in environ:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def launched(config, out, *more):
    """A run under `accelerate launch` that has trained for some steps, and its log."""
    command = [*runs.LAUNCH, "--config_file", CONFIGS / config]
    command += [runs.REPOSITORY / "scripts" / "grpo.py", *ARGS, "--out", out, *more]
    log = out.with_suffix(".log")
    with log.open("wb") as file:
        run = subprocess.Popen(
            [str(part) for part in command],
            env=runs.environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    metrics = out / "grpo" / "metrics.jsonl"

    def enough():
        ended = run.poll() is not None
        return ended or (metrics.is_file() and len(metrics.read_bytes().splitlines()) > 2)

    runs.wait_for(enough, what="three steps")
    assert run.poll() is None, log.read_text()
    return run, log


def struck(run, log, rank, number, out):
    """What the run's launcher and processes said after that signal to one of them."""
    pids = [process(one, out) for one in range(2)]
    begun = time.monotonic()
    os.kill(pids[rank], number)
    try:
        assert run.wait(ALL) != 0
    finally:
        for pid in pids:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
    assert time.monotonic() - begun < ALL
    return log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "rank"),
    [pytest.param("ddp_cpu.yaml", 0, marks=pytest.mark.long), ("fsdp_cpu.yaml", 1)],
)
def test_where_one_of_two_processes_is_killed_both_end_and_say_why(config, rank, tmp_path):
    out = tmp_path / "run"
    said = struck(*launched(config, out), rank, signal.SIGKILL, out)
    (survivor,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert f"rank {1 - rank}: another process of this run is gone" in survivor
    assert "continue with --resume" in survivor
    cause = said[said.index("Root Cause") :]
    assert f"rank      : {rank} " in cause
    assert "(SIGKILL)" in cause
    whole, log = tmp_path / "whole", tmp_path / "log"
    options = {"ranks": 2, "sharded": config == "fsdp_cpu.yaml", "log": log}
    for args in ([*ARGS, "--out", out, "--resume"], [*ARGS, "--out", whole]):
        answer = runs.nursery().run("grpo", args, **options)
        assert answer["codes"] == [0, 0], log.read_text()
    runs.check_equal(out / "grpo", whole / "grpo")


@pytest.mark.long
def test_a_process_that_hangs_ends_the_run_after_its_patience(tmp_path):
    out = tmp_path / "run"
    run, log = launched("ddp_cpu.yaml", out, "--compute.patience", "10")
    said = struck(run, log, 1, signal.SIGSTOP, out)
    (survivor,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "rank 0: another process of this run did not answer within 10 s" in survivor
    assert "rank      : 0 " in said[said.index("Root Cause") :]
    assert "--compute.patience above 10" in survivor


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 10000ms for recv operation",
         "did not answer within 10 s"),
        ("[gloo/transport/tcp/pair.cc:534] Connection closed by peer", "is gone"),
    ],
)  # fmt: skip
def test_a_process_that_was_slow_may_be_waited_for_longer(said, expected, monkeypatch):
    monkeypatch.setattr(lost, "LINGER", 0.0)
    for kind in (RuntimeError, distributed.DistBackendError):
        with pytest.raises(lost.LostProcessError) as caught, lost.noticed(3, patience=10.0):
            raise kind(said)
        assert f"rank 3: another process of this run {expected}" in str(caught.value)
        assert "--resume" in str(caught.value)
        slow = "--compute.patience above 10" in str(caught.value)
        assert slow == ("Timed out" in said)


@pytest.mark.parametrize("patience", [0.0, -1.0])
def test_processes_wait_for_some_time(patience):
    with pytest.raises(ConfigError, match=r"compute\.patience.*above 0"):
        Compute(patience=patience)


def test_an_error_that_all_processes_share_leaves_a_checkpoint(tmp_path):
    """The second process's sampler is gone in the third step; both say so, and both save."""
    args = [*ARGS[:4], "--steps", "4", "--checkpoints.every", "0"]
    log = tmp_path / "log"
    out, whole = tmp_path / "run", tmp_path / "whole"
    hurt = ["scarce.sampler_gone", 1, 3]
    answer = runs.nursery().run("grpo", [*args, "--out", out], ranks=2, log=log, hurt=hurt)
    assert answer["codes"] == [2, 2], log.read_text()
    assert "step 3: the sampler is gone" in log.read_text()
    assert runs.checkpoints(out / "grpo") == ["step-000002"]
    for folder, more in ((out, ["--resume"]), (whole, [])):
        given = [*args, "--out", folder, *more]
        answer = runs.nursery().run("grpo", given, ranks=2, log=log)
        assert answer["codes"] == [0, 0], log.read_text()
    runs.check_equal(out / "grpo", whole / "grpo")
