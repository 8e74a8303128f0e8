"""Checkpoints on a full disk, of another run, with any bit altered, and with lying clocks."""

import errno
import json
import os
import resource
import shutil
import signal

import pytest
import torch
from safetensors import SafetensorError

import align.checkpoint
import align.files.intact
from align.checkpoint import CheckpointError, Checkpoints, Log, state_file
from align.files import manifest
from align.files.disk import FolderError
from align.files.intact import MANIFEST, DamagedError, opened
from align.files.pieces import entire
from align.stages.ledger import Ledger

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
RUST = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def _save(store, *steps, size=12):
    for step in steps:
        state = {"w": entire(torch.full((size,), float(step)))}
        store.save(step, state, {"stage": {"cursor": 7 * step, "text": "a\u2028b"}})
    return store


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _raising(error, after=lambda *args: None):
    def fail(*args, **options):
        after(*args)
        raise error

    return fail


def _half(path, pieces):
    path.write_bytes(b"\0" * 1000)


REFUSALS = {
    "weights": ("align.checkpoint.write", _raising(RUST, _half)),
    "weights, by Python": ("align.checkpoint.write", _raising(FULL, _half)),
    "sync of the weights": ("align.checkpoint.os.fsync", _raising(FULL)),
    "manifest": ("align.checkpoint.seal", _raising(FULL, lambda f, _: (f / MANIFEST).touch())),
    "folder": ("align.checkpoint.Path.mkdir", _raising(FULL)),
    "into its place": ("align.checkpoint.Path.rename", _raising(FULL)),
    "sync of the folder": ("align.checkpoint._sync_folder", _raising(FULL)),
}


@pytest.mark.parametrize("place", REFUSALS)
def test_a_full_disk_leaves_the_former_checkpoint_and_no_half_of_another(
    place, tmp_path, monkeypatch
):
    store = _save(Checkpoints(tmp_path, keep=1), 2)
    with monkeypatch.context() as patch, pytest.raises(CheckpointError) as caught:
        patch.setattr("sys.argv", ["scripts/grpo.py", "--out", "there"])
        patch.setattr(*REFUSALS[place])
        _save(store, 4, size=20_000)
    said = str(caught.value)
    for part in ("step 4", str(tmp_path), "No space left", " free, 80.0 kB needed"):
        assert part in said
    assert (
        "give the same command with --resume: python scripts/grpo.py --out there --resume" in said
    )
    assert [name for name in _names(tmp_path) if name.startswith(".")] == []
    whole = 4 if place == "sync of the folder" else 2  # the last thing, when it is there already
    assert store.newest()[1]["step"] == whole
    assert f"goes on from step-00000{whole}" in said
    _save(store, 6, size=20_000)  # there is room again
    assert _names(tmp_path) == ["step-000006"]


def test_a_file_that_the_kernel_lets_grow_no_further(tmp_path):
    """Nothing injected: a limit on the size of files, which safetensors runs into."""
    store = _save(Checkpoints(tmp_path, keep=1), 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"File too large.*80\.0 kB needed"):
            _save(store, 4, size=20_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _names(tmp_path) == ["step-000002"]
    assert store.newest()[1]["step"] == 2


@pytest.mark.parametrize("name", ["metrics.jsonl", "sampled.jsonl"])
def test_a_log_takes_whole_rows_or_none(name, tmp_path):
    """Real writes again; what does not fit is taken back, and later rows follow the former."""
    log = Log(tmp_path / name)
    log.write([{"row": 1}])
    before = (tmp_path / name).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(FolderError, match=rf"no room left in {tmp_path}.* free, 118 bytes nee"):
            log.write([{"row": 2, "text": "x" * 95}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / name).read_bytes() == before
    log.write([{"row": 3}])
    assert log.rows() == [{"row": 1}, {"row": 3}]
    assert log.length() == (tmp_path / name).stat().st_size


def test_a_batch_of_samples_without_room_is_drawn_again(tmp_path, monkeypatch):
    path, prompts = tmp_path / "sampled.jsonl", ["a", "b", "c", "d"]
    lines = [{"row": i, "prompt": prompt} for i, prompt in enumerate(prompts)]
    ledger = Ledger(path, range(4), prompts, 2)
    ledger.add(lines[:2])
    with monkeypatch.context() as patch, pytest.raises(FolderError, match="no room left in"):
        patch.setattr("align.checkpoint.os.fsync", _raising(FULL))
        ledger.add(lines[2:])
    again = Ledger(path, range(4), prompts, 2)
    assert again.lines[:2] == lines[:2]
    again.add(lines[len(again.lines) :])
    assert Ledger(path, range(4), prompts, 2).lines == lines


@pytest.mark.parametrize("line", ['{"step: 2}', "7", "null", "[1, 2]", '"step"'])
def test_a_log_changed_by_hand_is_named_with_the_line(line, tmp_path):
    log = Log(tmp_path / "metrics.jsonl")
    log.write([{"step": 1}, {"step": 2}])
    content = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(content.replace('{"step": 2}', line))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 2 cannot be read.*--out"):
        log.rows()


def test_every_bit_of_a_manifest_counts(tmp_path):
    """Also those of a number, which makes another number and JSON all the same."""
    folder = _save(Checkpoints(tmp_path, keep=1), 2).folder / "step-000002"
    content, right = (folder / MANIFEST).read_bytes(), opened(folder)
    for i in range(len(content)):
        for bit in (1, 16):
            hurt = bytearray(content)
            hurt[i] ^= bit
            (folder / MANIFEST).write_bytes(hurt)
            try:
                assert opened(folder) == right  # white space alone may differ
                assert content[i : i + 1].isspace()
            except DamagedError as error:
                assert MANIFEST in str(error)


def _alter(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content)


HARMS = {
    "missing": lambda path: path.unlink(),
    "a byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a byte longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "emptied": lambda path: path.write_bytes(b""),
    "a bit": _alter,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        (name, harm)
        for name in (state_file(0), MANIFEST)
        for harm in HARMS
        if (name, harm) != (MANIFEST, "a byte longer")  # a blank after JSON is JSON
    ],
)
def test_what_was_done_to_a_file_is_said_and_where_it_goes_on(name, harm, tmp_path, caplog):
    store = _save(Checkpoints(tmp_path, keep=3), 2, 4, 6)
    for step in (4, 6):
        HARMS[harm](tmp_path / f"step-00000{step}" / name)
    assert store.newest()[1]["step"] == 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    for step, one in zip((6, 4), said, strict=True):
        assert f"step-00000{step}: {name} " in one
        assert "going on from step-000002" in one
    if harm.startswith("a byte") and name != MANIFEST:
        assert all(" bytes instead of " in one for one in said)
    if harm == "a bit" and name != MANIFEST:
        assert all("sha256 is " in one and "… instead of " in one for one in said)


def test_a_checkpoint_of_another_run_is_refused_and_says_what_differs(tmp_path):
    store = _save(Checkpoints(tmp_path, keep=3), 2)
    with pytest.raises(CheckpointError) as caught:
        store.newest(lambda stored: [f"cursor: {stored['stage']['cursor']} -> 0"])
    said = str(caught.value)
    assert (
        f"{tmp_path}/step-000002 is a checkpoint of another run (cursor: 14 -> 0): delete" in said
    )
    assert store.newest(lambda stored: [])[1]["step"] == 2


def test_what_makes_a_checkpoint_another_runs():
    mine = {"recipe": "a", "config": {"kind": "sft", "name": "sft", "lr": 1.0, "checkpoints": 1},
            "inputs": {"m": "1"}, "files": {}, "free": {}}  # fmt: skip
    assert manifest.strange(mine, mine) == []
    assert manifest.strange({}, {}) == []
    assert manifest.strange({}, mine) and manifest.strange(mine, {})
    free = mine | {"config": mine["config"] | {"checkpoints": 2}, "recipe": "b"}
    assert manifest.strange(free, mine) == []  # of the same result, whatever it is called
    other = mine | {"config": mine["config"] | {"lr": 2.0}, "recipe": "b", "inputs": {"m": "2"}}
    assert manifest.strange(other, mine) == [
        "recipe: b -> a",
        "lr: 2.0 -> 1.0",
        "other weights of m",
    ]
    stage = mine | {"config": mine["config"] | {"name": "dpo", "kind": "dpo"}}
    assert manifest.strange(stage, mine) == ["kind: dpo -> sft", "name: dpo -> sft"]


def test_the_newest_is_that_of_the_highest_step_whatever_the_clock_said(tmp_path):
    store = _save(Checkpoints(tmp_path, keep=3), 8, 9, 10)
    for step, moment in ((8, 4e9), (9, 2e9), (10, 0)):
        for path in (tmp_path / f"step-{step:06d}", *(tmp_path / f"step-{step:06d}").iterdir()):
            os.utime(path, (moment, moment))
    assert store.newest()[1]["step"] == 10
    _save(store, 11)
    assert _names(tmp_path) == ["step-000009", "step-000010", "step-000011"]


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path, monkeypatch):
    """With one checkpoint kept: the one that was to be replaced lies under a temporary name."""
    store = _save(Checkpoints(tmp_path, keep=1), 3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        rename = align.checkpoint.Path.rename

        def once(path, target):
            if path.suffix == ".partial":
                raise KeyboardInterrupt
            return rename(path, target)

        patch.setattr("align.checkpoint.Path.rename", once)
        _save(store, 3)
    assert _names(tmp_path) == [".step-000003.partial", ".step-000003.replaced"]
    assert store.newest()[1]["step"] == 3
    assert _names(tmp_path) == ["step-000003"]
    shutil.rmtree(tmp_path / "step-000003")


def test_ctrl_c_in_the_middle_of_a_checkpoint_leaves_the_former_one(tmp_path, monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's `&`
    store = _save(Checkpoints(tmp_path, keep=1), 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "align.checkpoint.write",
            _raising(AssertionError, lambda *_: signal.raise_signal(signal.SIGINT)),
        )
        _save(store, 4)
    assert store.newest()[1]["step"] == 2
    assert _names(tmp_path) == ["step-000002"]
    assert json.loads((tmp_path / "step-000002" / MANIFEST).read_text())["step"] == 2
