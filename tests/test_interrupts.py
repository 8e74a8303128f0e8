"""Ctrl-C to a run, to a chain and to what it launched, and the terminal afterwards."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import runs

import rewards
from align.chain import launch
from align.files.lock import locked

CTRL_C = 130
# A stage that is deaf to Ctrl-C, below a launcher, as the chain starts it.
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
DEAF += "print('up', flush=True); time.sleep(600)"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
CHAIN = """
import sys
from align.chain import launch
from align.processes.interrupt import end_on_interrupt
launch.GRACE = float(sys.argv[1])
end_on_interrupt()
launch.call([sys.executable, "-c", sys.argv[2], sys.argv[3]], launched=True)
"""


@pytest.mark.parametrize("twice", [True, False])
def test_a_deaf_stage_is_ended_at_the_second_ctrl_c_or_after_a_while(twice):
    chain = subprocess.Popen(
        [sys.executable, "-c", CHAIN, "600" if twice else "0.5", PARENT, DEAF],
        cwd=runs.REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert chain.stdout.readline() == "up\n"
    family = psutil.Process(chain.pid).children(recursive=True)
    assert len(family) == 2
    os.killpg(chain.pid, signal.SIGINT)  # as a terminal does
    if twice:
        time.sleep(0.5)
        assert chain.poll() is None
        os.killpg(chain.pid, signal.SIGINT)
    assert chain.wait(timeout=60) == CTRL_C
    assert psutil.wait_procs(family, timeout=10)[1] == []
    said = chain.stderr.read()
    assert said.count("stopped by Ctrl-C") == 1 and "Traceback" not in said


def sleeping_judge():
    """In a run's process: a reward that gets a Ctrl-C while it sleeps."""

    def score(self, completions, **columns):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(30)

    rewards.Accuracy.score = score


def test_ctrl_c_while_a_reward_runs_is_not_the_rewards_fault(tmp_path):
    answer = runs.nursery().run(
        "grpo",
        runs.grpo(tmp_path / "run"),
        log=tmp_path / "log",
        hurt=["test_interrupts.sleeping_judge"],
    )
    said = (tmp_path / "log").read_text()
    assert answer["codes"] == [CTRL_C], said
    assert said.count("stopped by Ctrl-C") == 1
    for word in ("the reward", "error:", "Traceback"):
        assert word not in said, said


def test_what_cannot_be_launched_leaves_ctrl_c_as_it_was(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(FileNotFoundError):
        launch.call([str(tmp_path / "none")], launched=False)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


BAR = """
import os, signal, time
from align.processes.interrupt import end_on_interrupt
from align.terminal.progress import Progress
end_on_interrupt()
Progress(9, enabled=True).start(0, resumed=False)
time.sleep(0.3)
try:
    signal.raise_signal(signal.SIGINT)
finally:
    {}
"""


@pytest.mark.parametrize("last", ["pass", "signal.raise_signal(signal.SIGINT)"])
def test_the_terminal_has_its_cursor_back(last):
    """After one Ctrl-C, and after a second in the midst of what the first began."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", BAR.format(last)],
        cwd=runs.REPOSITORY,
        stdout=theirs,
        stderr=theirs,
        env=runs.environment() | {"TERM": "xterm"},
    )
    assert done.wait(timeout=60) == CTRL_C
    shown = os.read(ours, 100_000).decode()
    assert "\x1b[?25l" in shown  # it was hidden
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Traceback" not in shown


def _interrupted(command, log, ready, *signals):
    """Start a chain, and send it these as a terminal does once it is ready: what it said."""
    with log.open("w") as file:
        chain = subprocess.Popen(
            command,
            env=runs.environment(),
            cwd=runs.REPOSITORY,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        runs.wait_for(lambda: chain.poll() is not None or ready(chain), what="the stage")
        assert chain.poll() is None, log.read_text()
        family = psutil.Process(chain.pid).children(recursive=True)
        for number in signals:
            os.killpg(chain.pid, number)
            time.sleep(0.3)
        assert chain.wait(timeout=60) == 128 + signals[0]
    assert psutil.wait_procs(family, timeout=10)[1] == []
    return log.read_text()


@pytest.mark.slow
def test_ctrl_c_or_sigterm_to_a_chain_leaves_nobody_behind(tmp_path):
    """SIGTERM or Ctrl-C in a stage's steps; twice, while the stage of the next call starts."""
    script, stage = runs.REPOSITORY / "scripts" / "run.py", tmp_path / "run" / "sft"
    command = [sys.executable, script, "--recipe", "tiny", "--out", tmp_path / "run"]
    command += ["--sft.model", "random:recipes/tiny_model", "--only", "sft", "--sft.epochs", "200"]
    metrics = stage / "metrics.jsonl"
    told = _interrupted(command, tmp_path / "term", lambda _: _size(metrics), signal.SIGTERM)
    assert "stopped by SIGTERM after a checkpoint" in told and "Traceback" not in told, told
    so_far, ctrl_c = _size(metrics), signal.SIGINT
    said = [
        _interrupted(command, tmp_path / "once", lambda _: _size(metrics) > so_far, ctrl_c),
        _interrupted(
            command, tmp_path / "twice", lambda it: psutil.Process(it.pid).children(), *[ctrl_c] * 2
        ),
    ]
    for one in said:
        assert one.count("stopped by Ctrl-C") == 1 and "Traceback" not in one, one
    with locked(stage):
        assert not (stage / "done.json").exists()


def _size(file):
    return file.stat().st_size if file.exists() else 0
