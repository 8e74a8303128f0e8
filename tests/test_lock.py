"""One run a folder, and no orphan that writes on."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import runs

from align.files.folder import FolderError
from align.files.lock import STARTED_BY, end_with_starter, locked, mark_children

HOST = socket.gethostname()
HELD = rf"\(process {{}} on {HOST}\) is at work in .*\(kill [0-9]+\)"
HOLDER = """
import sys, time
from pathlib import Path
from align.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
# A command that starts a child, as the chain starts a stage, and says its pid.
STARTER = """
import subprocess, sys, time
from align.files.lock import mark_children
mark_children()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(600)
"""
CHILD = """
import time
from align.files.lock import end_with_starter
end_with_starter()
time.sleep(600)
"""


def start(code, *args):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=runs.REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_folder_is_held_by_one_process_until_it_is_killed(tmp_path):
    holder = start(HOLDER, tmp_path)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderError, match=HELD.format(holder.pid)):
        locked(tmp_path).__enter__()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path):
        assert (tmp_path / ".pid").read_text() == f"{os.getpid()} {HOST}\n"


def test_waiting_for_the_holder(tmp_path):
    holder = start(HOLDER.replace("600", "1"), tmp_path)
    assert holder.stdout.readline() == "held\n"
    with locked(tmp_path, wait=60.0):
        pass
    assert holder.wait() == 0


def test_what_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"file/run cannot be made .*--out"):
        locked(tmp_path / "file" / "run").__enter__()


def test_a_child_ends_when_its_starter_is_killed():
    starter = start(STARTER, CHILD)
    child = psutil.Process(int(starter.stdout.readline()))
    runs.wait_for(lambda: len(child.threads()) > 1, what="the child's watch")
    assert child.status() != psutil.STATUS_ZOMBIE
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    child.wait(timeout=10)


def test_another_process_of_that_number_is_not_the_starter(monkeypatch):
    told = []
    monkeypatch.setattr(os, "kill", lambda pid, signal: told.append((pid, signal)))
    monkeypatch.setattr("align.files.lock.LOOK_EVERY", 0.01)
    monkeypatch.setenv(STARTED_BY, f"{os.getpid()} 1")
    end_with_starter()
    runs.wait_for(lambda: told, what="the signal")
    assert told == [(os.getpid(), signal.SIGTERM)]


def test_a_child_lives_as_long_as_its_starter(monkeypatch):
    told = []
    monkeypatch.setattr(os, "kill", lambda pid, signal: told.append((pid, signal)))
    monkeypatch.setattr("align.files.lock.LOOK_EVERY", 0.01)
    monkeypatch.setenv(STARTED_BY, "0 0")  # put back afterwards
    mark_children()
    assert os.environ[STARTED_BY].split()[0] == str(os.getpid())
    end_with_starter()
    time.sleep(0.2)
    assert told == []


def test_an_evaluation_ends_with_its_starter_too(tmp_path):
    command = [sys.executable, runs.REPOSITORY / "scripts" / "evaluate.py", "--recipe", "tiny"]
    done = subprocess.run(
        [*command, "--model", "random:recipes/tiny_model", "--out", tmp_path, "--limit", "4"],
        cwd=runs.REPOSITORY,
        env=runs.environment() | {STARTED_BY: f"{os.getpid()} 1"},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGTERM
    assert not list(tmp_path.rglob("*.json"))
