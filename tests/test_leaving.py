"""A thread that somebody left behind does not keep a run that is over."""

import subprocess
import sys

import pytest
import runs

LEFT = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from align.processes import leaving
leaving.PATIENCE = 0.5
with leaving.ending_in_time():
    print("done", end="")
    if sys.argv[2] == "pooled":
        ThreadPoolExecutor(1, "judge").submit(time.sleep, float(sys.argv[1]))
    else:
        threading.Thread(target=time.sleep, args=(float(sys.argv[1]),), name="judge").start()
    if sys.argv[2] == "fails":
        raise SystemExit(2)
    if sys.argv[2] == "breaks":
        raise ValueError("no")
if sys.argv[2] == "goes on":  # the process has more to do
    time.sleep(1.5)
    print("later", end="", flush=True)
if sys.argv[2] == "at exit":  # as pools are closed
    atexit.register(lambda: (time.sleep(1.5), print("later", end="", flush=True)))
"""
RUN = """
import threading, time
from align.processes import leaving
from align.cli import launch
from align.config import Sft
leaving.PATIENCE = 0.5
threading.Thread(target=time.sleep, args=(600,), name="judge").start()
launch(Sft, "a test")
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [("well", 0), ("pooled", 0), ("goes on", 0), ("at exit", 0), ("fails", 2), ("breaks", 1)],
)
@pytest.mark.parametrize("seconds", [0.1, 600])
def test_the_process_ends_with_its_own_exit_code(seconds, how, code):
    done = subprocess.run(
        [sys.executable, "-c", LEFT, str(seconds), how],
        cwd=runs.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    later = how == "goes on" or (how == "at exit" and seconds < 1)
    said = "donelater" if later else "done"
    assert (done.returncode, done.stdout) == (code, said)
    assert ("without waiting for the thread judge" in done.stderr) == (seconds > 1)


def test_a_run_ends_in_time(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    flags = ["--recipe", "tiny", "--out", tmp_path, "--data", tmp_path / "empty.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *flags],
        cwd=runs.REPOSITORY,
        env=runs.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "holds no rows" in done.stderr and "the thread judge" in done.stderr
