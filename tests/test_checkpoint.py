"""Checkpoints are whole or absent; what is damaged is passed over by name; nothing is unpickled."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from align.checkpoint import (
    CheckpointError,
    Checkpoints,
    Log,
    Processes,
    state_file,
)
from align.files.intact import MANIFEST, OWN, fingerprint, seal
from align.files.pieces import entire

STATE = state_file(0)


def _state(step):
    return {"w": entire(torch.full((4, 3), float(step))), "step": entire(torch.tensor(step))}


def _save(store, *steps):
    for step in steps:
        store.save(step, _state(step), {"stage": {"cursor": 7 * step}})
    return store


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _newest(store):
    """The step of the newest whole checkpoint, its tensors seen to be that step's."""
    state, manifest = store.newest()
    torch.testing.assert_close(
        state.read("w", (0, 0), (4, 3)),
        torch.full((4, 3), float(manifest["step"])),
        rtol=0,
        atol=0,
    )
    assert manifest["stage"] == {"cursor": 7 * manifest["step"]}
    return manifest["step"]


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    store = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert store.newest() is None
    folder = store.save(12, _state(12), {"stage": {"cursor": 84}, "optimizer_step": 3})
    assert folder.name == "step-000012"
    state, manifest = store.newest()
    assert sorted(state.names()) == ["step", "w"]
    assert torch.equal(state.read("w", (0, 0), (4, 3)), _state(12)["w"].tensor)
    assert torch.equal(state.read("step", (), ()), torch.tensor(12))
    assert (manifest["step"], manifest["optimizer_step"]) == (12, 3)


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (1, ["step-000004"]),
        (3, ["step-000002", "step-000003", "step-000004"]),
        (0, ["step-000004"]),
    ],
)
def test_rotation_keeps_the_newest(tmp_path, keep, left):
    _save(Checkpoints(tmp_path, keep=keep), 1, 2, 3, 4)
    assert _names(tmp_path) == left


def test_rotation_keeps_fewer_than_wanted_while_there_are_no_more(tmp_path):
    _save(Checkpoints(tmp_path, keep=5), 1, 2, 3)
    assert _names(tmp_path) == ["step-000001", "step-000002", "step-000003"]


def test_steps_beyond_six_digits_keep_their_order(tmp_path):
    store = _save(Checkpoints(tmp_path, keep=2), 999_998, 999_999, 1_000_000)
    assert _names(tmp_path) == ["step-1000000", "step-999999"]
    assert _newest(store) == 1_000_000
    _save(store, 1_000_001)
    assert _names(tmp_path) == ["step-1000000", "step-1000001"]


def test_what_merely_looks_like_a_checkpoint_is_let_be(tmp_path):
    store = Checkpoints(tmp_path, keep=1)
    for name in ("step-final", "step-000009"):
        (tmp_path / name).write_text("somebody's notes")
    (tmp_path / "step-best").mkdir()
    _save(store, 1, 2)
    assert _names(tmp_path) == ["step-000002", "step-000009", "step-best", "step-final"]
    assert _newest(store) == 2


def test_the_same_step_saved_again_replaces_the_first(tmp_path):
    store = _save(Checkpoints(tmp_path, keep=2), 3)
    store.save(3, _state(3), {"stage": {"cursor": 21}, "again": True})
    assert store.newest()[1]["again"]
    assert _names(tmp_path) == ["step-000003"]


def test_a_kill_while_a_step_is_replaced_never_leaves_a_damaged_one(tmp_path, monkeypatch):
    """With one checkpoint kept, the old one must not lie there half removed."""
    store = _save(Checkpoints(tmp_path, keep=1), 3)

    class Killed(BaseException):
        pass

    def half(folder, **options):
        next(Path(folder).glob("*")).unlink()
        raise Killed

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(shutil, "rmtree", half)
            _save(store, 3)
        assert _newest(store) == 3
    _save(store, 5)
    assert _names(tmp_path) == ["step-000005"]


def test_what_was_not_renamed_does_not_count_and_is_cleared_away(tmp_path):
    store = _save(Checkpoints(tmp_path, keep=2), 1)
    shutil.copytree(tmp_path / "step-000001", tmp_path / ".step-000002.partial")
    assert _newest(store) == 1
    _save(store, 3)
    assert _names(tmp_path) == ["step-000001", "step-000003"]


def _truncate(folder):
    file = folder / STATE
    file.write_bytes(file.read_bytes()[:-1])


def _alter(folder):
    file = folder / STATE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "truncated": (_truncate, STATE),
    "altered by one bit": (_alter, STATE),
    "weights missing": (lambda folder: (folder / STATE).unlink(), STATE),
    "manifest missing": (lambda folder: (folder / MANIFEST).unlink(), MANIFEST),
    "manifest cut": (lambda folder: (folder / MANIFEST).write_text('{"step": 2, '), MANIFEST),
    "manifest of something else": (lambda folder: (folder / MANIFEST).write_text("{}"), MANIFEST),
    "manifest a list": (lambda folder: (folder / MANIFEST).write_text("[]"), MANIFEST),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path, caplog, damage):
    hurt, file = DAMAGES[damage]
    store = _save(Checkpoints(tmp_path, keep=3), 1, 2)
    hurt(tmp_path / "step-000002")
    assert _newest(store) == 1
    (record,) = caplog.records
    assert str(tmp_path / "step-000002") in record.getMessage()
    assert file in record.getMessage()


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_every_checkpoint_is_damaged_the_error_says_what_to_do(tmp_path, damage):
    hurt, file = DAMAGES[damage]
    store = _save(Checkpoints(tmp_path, keep=3), 1, 2)
    for step in (1, 2):
        hurt(tmp_path / f"step-00000{step}")
    with pytest.raises(CheckpointError) as error:
        store.newest()
    assert str(tmp_path) in str(error.value)
    assert file in str(error.value)
    assert "delete the stage's folder" in str(error.value)


def test_the_checkpoint_just_written_outlives_a_damaged_later_one(tmp_path):
    store = _save(Checkpoints(tmp_path, keep=1), 10)
    shutil.copytree(tmp_path / "step-000010", tmp_path / "step-000020")
    _truncate(tmp_path / "step-000020")
    assert _newest(store) == 10
    _save(store, 11)
    assert _names(tmp_path) == ["step-000011"]
    assert _newest(store) == 11


def test_what_goes_wrong_on_another_process_is_raised_on_this_one_and_leaves_no_checkpoint(
    tmp_path,
):
    others = iter([[(0, "")], [(None, "No space left on device")], [(None, "")]])
    both = Processes(index=0, gathered=lambda items: items + next(others))
    store = Checkpoints(tmp_path, keep=1, processes=both)
    with pytest.raises(CheckpointError, match="No space left on device"):
        store.save(1, _state(1), {})
    assert Checkpoints(tmp_path, keep=1).newest() is None


def test_an_error_without_words_is_an_error(tmp_path, monkeypatch):
    def write(path, pieces):
        raise OSError

    monkeypatch.setattr("align.checkpoint.write", write)
    with pytest.raises(CheckpointError, match="OSError"):
        _save(Checkpoints(tmp_path, keep=1), 1)
    assert _names(tmp_path) == []


def test_the_manifest_names_every_processes_file(tmp_path):
    other = {state_file(1): {"bytes": 5, "sha256": "0"}}
    others = iter([[(0, "")], [(other, "")], [(None, "")]])
    both = Processes(index=0, gathered=lambda items: items + next(others))
    folder = Checkpoints(tmp_path, keep=1, processes=both).save(1, _state(1), {})
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["files"].keys() == {state_file(0), state_file(1)}
    assert manifest["files"][state_file(1)] == other[state_file(1)]
    assert "\n" not in (folder / MANIFEST).read_text()  # a rollout has thousands of numbers


class _Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("form", ["pickle", "archive"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, form):
    """Size and hash in the manifest are made to fit, as one who means harm would."""
    store = _save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    folder, touched = tmp_path / "checkpoints" / "step-000001", tmp_path / "touched"
    if form == "pickle":
        (folder / STATE).write_bytes(pickle.dumps(_Malicious(touched)))
    else:
        torch.save({"model": _Malicious(touched)}, folder / STATE)
        assert zipfile.is_zipfile(folder / STATE)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][STATE] = fingerprint(folder / STATE)
    del manifest[OWN]
    seal(folder, manifest)
    with pytest.raises(CheckpointError, match=r"deserializing header.*delete the stage's folder"):
        store.newest()
    assert not touched.exists()
    if form == "pickle":  # the file would have done harm
        pickle.loads((folder / STATE).read_bytes())  # noqa: S301
        assert touched.exists()


def test_a_log_is_cut_back_to_where_the_checkpoint_saw_it(tmp_path):
    log = Log(tmp_path / "metrics.jsonl")
    log.write([{"step": 1}, {"step": 2}])
    length = log.length()
    log.write([{"step": 3}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a row that a kill cut short

    resumed = Log(tmp_path / "metrics.jsonl")
    resumed.cut(length)
    assert resumed.length() == length
    resumed.write([{"step": 3, "again": True}])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "again": True},
    ]
    assert resumed.length() == (tmp_path / "metrics.jsonl").stat().st_size


def test_a_log_shorter_than_the_checkpoint_remembers_is_an_error(tmp_path):
    log = Log(tmp_path / "metrics.jsonl")
    log.write([{"step": 1}])
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is shorter .*12 of 99 bytes"):
        log.cut(99)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_lone_surrogate_in_a_sample_is_written_as_a_row_like_any_other(tmp_path):
    log = Log(tmp_path / "samples.jsonl")
    texts = ["a\ud800b", "步骤 \N{GRINNING FACE}", "\udfff", "line\nbreak\u2028\x00"]
    log.write([{"completion": text} for text in texts])
    lines = (tmp_path / "samples.jsonl").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["completion"] for line in lines] == [
        "a?b",
        "步骤 \N{GRINNING FACE}",
        "?",
        "line\nbreak\u2028\x00",
    ]
