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

ARGS = ["--recipe", "tiny", "--model", "random:recipes/tiny_model", "--steps", "60"]
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
    """A run under `accelerate launch`, once it has trained for some steps."""
    command = [runs.BIN / "accelerate", "launch", "--config_file", CONFIGS / config]
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
    ("config", "rank"), [("ddp_cpu.yaml", 0), ("ddp_cpu.yaml", 1), ("fsdp_cpu.yaml", 1)]
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
    sharded = config == "fsdp_cpu.yaml"
    stages = []
    for folder, more in ((out, ["--resume"]), (tmp_path / "whole", [])):
        answer = runs.nursery().run(
            "grpo", [*ARGS, "--out", folder, *more], ranks=2, sharded=sharded, log=tmp_path / "log"
        )
        assert answer["codes"] == [0, 0], (tmp_path / "log").read_text()
        stages.append(folder / "grpo")
    runs.check_equal(*stages)


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_run_after_its_patience(tmp_path):
    out = tmp_path / "run"
    run, log = launched("ddp_cpu.yaml", out, "--compute.patience", "10")
    said = struck(run, log, 1, signal.SIGSTOP, out)
    (survivor,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "rank 0: another process of this run did not answer within 10 s" in survivor
    assert "rank      : 0 " in said[said.index("Root Cause") :]
