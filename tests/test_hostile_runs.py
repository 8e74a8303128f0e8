"""Run folders on full or read-only disks or held by another run, clocks that jump, and runs that
Ctrl-C ends.
"""

import errno
import json
import os
import shutil
import signal
import socket
import time

import pytest
import runs

import data
from align import report
from align.config import Evaluation, Sft
from align.evaluation import results
from align.files import manifest
from align.files.cached import made
from align.files.disk import FolderError, refused, whole
from align.files.folder import evaluated, identity
from align.files.locate import Located
from align.files.lock import locked
from align.models import ModelError, ready
from data import FromStage

STEPS = ("--steps", "4")
CTRL_C = 130


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    _run(out, code=0)
    return out / "grpo"


def _run(out, *more, code=2, **options):
    """What a run of four steps said this time."""
    log = out.with_name(f"{out.name}.log")
    log.write_text("")
    answer = runs.nursery().run("grpo", runs.grpo(out, *STEPS, *more), log=log, **options)
    said = log.read_text()
    assert answer["codes"] == [code], said
    assert "Traceback" not in said and "Exception ignored" not in said
    return said


FULL = (
    (["refused_file", "config.json"], "No space left", None),
    (["refused_file", "metrics.jsonl"], "No space left", None),
    (["small_files", 400_000], "File too large", None),  # the weights of the first checkpoint
    (["refused_file", "samples.jsonl"], "No space left", None),
    (["no_room_for_the_model"], "No space left", 2),
    (["refused_file", "done.json"], "No space left", 2),
)


def test_a_disk_that_is_full_wherever_it_is_written_to(uninterrupted, tmp_path):
    """One place after the other in one run, each time an error with all that one needs to know and
    no half of anything; with room again it ends as if nothing had been.
    """
    out = tmp_path / "run"
    stage = out / "grpo"
    for hurt, words, newest in FULL:
        said = _run(out, "--resume", hurt=hurt)
        (line,) = [line for line in said.splitlines() if line.startswith("error:")]
        again = "give the same command with --resume: python scripts/"
        for part in (words, str(stage), " free", again):
            assert part in line, (hurt, line)
        assert hurt[0] == "refused_file" or " needed" in line, (hurt, line)
        left = [path for path in stage.rglob("*") if ".partial" in path.name]
        assert left == [], hurt
        assert not (stage / "done.json").exists()
        steps = [int(name[-6:]) for name in runs.checkpoints(stage)]
        assert steps == ([newest] if newest else []), hurt
    _run(out, "--resume", code=0)
    runs.check_equal(stage, uninterrupted)


def test_a_disk_that_becomes_read_only(tmp_path):
    said = _run(tmp_path / "run", hurt=["refused_file", "metrics.jsonl", errno.EROFS])
    stage = tmp_path / "run" / "grpo"
    assert f"error: {stage}" in said and "cannot be written (Read-only file system)" in said
    assert "make it writable, or choose another folder with --out" in said


def test_an_evaluation_without_room_keeps_the_former_result(tmp_path, monkeypatch):
    answer = {"row": 0, "sample": 0, "completion": "1", "strict": 1, "lenient": 1, "format": 1}
    path = tmp_path / "evaluations" / "sft.json"
    results.write(path, {"label": "sft"}, [answer])
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(FolderError, match=r"no room left.*evaluat"):
        patch.setattr("align.files.disk.os.fsync", full)
        with whole(path):
            pass
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    with monkeypatch.context() as patch, pytest.raises(FolderError, match="no room left"):
        patch.setattr("align.files.disk.os.fsync", full)
        results.write(path, {"label": "sft"}, [answer | {"completion": "2"}])
    assert (path.parent / "sft.jsonl").read_bytes() == before["sft.jsonl"]
    assert not [file for file in path.parent.iterdir() if file.name.startswith(".")]


def test_which_errors_are_a_disks(tmp_path):
    inside, outside = str(tmp_path / "a" / "b"), "/elsewhere/b"
    full = refused(OSError(errno.ENOSPC, "no", inside), tmp_path, needed=5_000)
    assert full.startswith(f"no room left in {tmp_path}/a (No space left on device): ")
    assert full.endswith(" free, 5.0 kB needed: make room there")
    assert "Disk quota exceeded" in refused(OSError(errno.EDQUOT, "no"), tmp_path)
    wrapped = RuntimeError("an error occurred while generating the data set")
    wrapped.__cause__ = OSError(errno.ENOSPC, "no")
    assert refused(wrapped, tmp_path)
    assert refused(RuntimeError("unable to write: No space left on device (28)"), tmp_path)
    assert refused(PermissionError(errno.EACCES, "no", inside), tmp_path).startswith(inside)
    for other in (
        PermissionError(errno.EACCES, "no", outside),
        PermissionError(errno.EPERM, "a signal to another's process"),
        FileNotFoundError(errno.ENOENT, "no", inside),
        RuntimeError("shapes do not fit"),
        FolderError("No space left on device, said already"),
    ):
        assert refused(other, tmp_path) is None


def _as_nobody(work):
    """What it raised, in a process that has no right to anything, or None."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        if os.getuid() == 0:
            os.setgroups([])
            os.setuid(65534)
        try:
            work()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading, "rb") as file:
        return file.read().decode() or None


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_may_not_be_written_to(there, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for folder in (out, tmp_path, *tmp_path.parents[:3]):
        if folder.owner() == tmp_path.owner():
            folder.chmod(0o755)
    out.chmod(0o555)

    def hold():
        with locked(out if there else out / "grpo"):
            pass

    said = _as_nobody(hold)
    verb = "locked" if there else "made"
    assert said.startswith(f"FolderError: {out}{'' if there else '/grpo'} cannot be {verb} (Perm")
    assert "another folder with --out" in said
    assert list(out.iterdir()) == []


def test_a_cache_that_may_not_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file, which stops root too")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match=r"cache/align/models cannot be used .*XDG_CACHE_HOME"):
        made("model", "key", lambda folder: None)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError]
)
def test_a_file_system_without_locks_is_named(error, tmp_path, monkeypatch):
    def acquire(self):
        raise error

    monkeypatch.setattr("align.files.lock.FileLock.acquire", acquire)
    with pytest.raises(FolderError, match=r"cannot be locked \(.*for NFS: mounted with locks"):
        locked(tmp_path).__enter__()


def test_a_second_run_says_who_is_there(tmp_path):
    begun = time.perf_counter()
    with locked(tmp_path / "run" / "grpo"):
        with pytest.raises(FolderError, match="is at work"):
            locked(tmp_path / "run" / "grpo").__enter__()
        assert time.perf_counter() - begun < 1
        said = _run(tmp_path / "run")
        (tmp_path / "run" / "grpo" / ".pid").write_text("7 another-machine\n")
        there = _run(tmp_path / "run")
    assert f"another run (process {os.getpid()} on {socket.gethostname()}) is at work in" in said
    assert "(process 7 on another-machine)" in there and "(kill 7 on another-machine)" in there


def test_a_checkpoint_copied_from_another_run_is_refused(uninterrupted, tmp_path):
    """Of a model of the same shape, which would fit; after it is deleted the run begins again."""
    out, other = tmp_path / "run", ("--optim.lr", "3e-4", "--resume")
    mine = out / "grpo" / "checkpoints"
    _run(out, *other, code=CTRL_C, hurt=["interrupt", 1, "update"])
    shutil.copytree(uninterrupted / "checkpoints", mine)
    said = _run(out, *other)
    (name,) = runs.checkpoints(uninterrupted)
    assert f"error: {mine / name} is a checkpoint of another run (optim.lr: " in said
    assert "-> 0.0003): delete it" in said
    shutil.rmtree(mine / name)
    _run(out, *other, code=0)
    assert runs.finished(out / "grpo") != runs.finished(uninterrupted)


ESSENCE = {"recipe": "tiny", "config": {}, "inputs": {}, "files": {}, "free": {}}


@pytest.mark.parametrize(
    "text",
    [
        *('{"config": ', "", "[]", "{}", "null", '{"recipe": "tiny"}'),
        *(json.dumps(ESSENCE | {name: None}) for name in ESSENCE if name != "recipe"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FolderError, match=r"manifest\.json cannot be read .*delete .* again"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("text", ['{"steps":', "", "[]", "{}", "7"])
def test_what_a_stage_wrote_last_cannot_be_read(text, tmp_path):
    """Whoever asks for it says so and what to do: who loads its model, or reads its data."""
    stage = tmp_path / "sft"
    (stage / "model").mkdir(parents=True)
    (stage / "data.jsonl").touch()
    (stage / "done.json").write_text(text)
    reader = Sft(name="g", model="@a", data=FromStage(stage="sft"))
    for ask in (
        lambda: ready(Located(kind="folder", path=str(stage / "model"))),
        lambda: identity(str(stage / "model")),
        lambda: manifest.basis(reader, {}, tmp_path),
    ):
        with pytest.raises(FolderError, match=rf"done\.json cannot be read .*delete {stage}, and"):
            ask()


@pytest.mark.parametrize("text", ["", '{"weights": ', "[]"])
def test_an_evaluation_that_cannot_be_read(text, tmp_path):
    config, model = Evaluation(data=data.Arithmetic(size=3)), Located(kind="hub", path="a/b")
    path = tmp_path / "evaluations" / "sft.json"
    assert not evaluated(tmp_path, "sft", config, model)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(FolderError, match=rf"{path} cannot be read .*delete {path}, and"):
        evaluated(tmp_path, "sft", config, model)


RESULTS = {
    "done.json": (lambda stage: (stage / "done.json").write_text("{"), "done.json cannot be read"),
    "the model": (lambda stage: shutil.rmtree(stage / "model"), "model were altered"),
    "the weights": (
        lambda stage: os.truncate(stage / "model" / "model.safetensors", 1000),
        "model were altered",
    ),
}


@pytest.mark.parametrize("what", RESULTS)
def test_a_complete_stage_without_its_result_is_not_called_complete(what, uninterrupted, tmp_path):
    harm, said = RESULTS[what]
    shutil.copytree(uninterrupted.parent, tmp_path / "run")
    harm(tmp_path / "run" / "grpo")
    (line,) = _run(tmp_path / "run", "--resume").splitlines()
    assert line.startswith("error: ") and said in line and "delete" in line


def crashes():
    """In a run's process: a reward whose C code does."""
    import ctypes

    import rewards

    rewards.Accuracy.score = lambda self, completions, **columns: ctypes.string_at(0)


def test_a_reward_that_crashes_the_process_is_named_by_where_it_was(tmp_path):
    log = tmp_path / "log"
    args = runs.grpo(tmp_path / "run", *STEPS)
    answer = runs.nursery().run("grpo", args, hurt=["test_hostile_runs.crashes"], log=log)
    assert answer["codes"] == [-signal.SIGSEGV]
    assert "Segmentation fault" in log.read_text()
    assert "test_hostile_runs.py" in log.read_text()


def test_a_clock_that_jumps_changes_nothing_but_the_times_of_day(uninterrupted, tmp_path):
    hurts = {"hurt": ["jumping_clock"]}
    _run(tmp_path / "run", code=0, **hurts)
    stage = tmp_path / "run" / "grpo"
    runs.check_equal(stage, uninterrupted)
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert [row["time"] for row in rows] != sorted(row["time"] for row in rows)  # it did jump
    for row in rows:
        assert all(0 <= row[name] < 600 for name in row if name.startswith("seconds/"))
    assert 0 <= json.loads((stage / "manifest.json").read_text())["seconds"] < 600
    page = report.write(tmp_path / "run").read_text()
    assert "step" in page and report.table(tmp_path / "run")


@pytest.mark.parametrize(
    ("times", "place", "newest"),
    [
        (1, "sampling", []),
        (7, "update", []),
        (1, "checkpoint", []),
        (2 * 4 - 1, "closing", ["step-000002"]),
    ],
)
def test_ctrl_c_ends_with_one_line_and_the_run_goes_on_as_it_was(
    times, place, newest, uninterrupted, tmp_path
):
    out = tmp_path / "run"
    said = _run(out, code=CTRL_C, hurt=["interrupt", times, place])
    lines = [line for line in said.splitlines() if "Ctrl-C" in line]
    assert lines == [line for line in lines if line.startswith("stopped by Ctrl-C; to go on, give")]
    assert len(lines) == 1 and lines[0].endswith(" --resume")
    assert runs.checkpoints(out / "grpo") == newest
    _run(out, "--resume", code=0)
    runs.check_equal(out / "grpo", uninterrupted)
    assert not [path for path in (out / "grpo").rglob("*") if ".partial" in path.name]
