"""The preflight of the disk, at its start and where a run is resumed."""

import shutil
from pathlib import Path

import pytest
from looked_at import answered, levels, sft, subject
from mistaken import problems

from align.config import Checkpoints
from align.files.folder import FolderError
from align.preflight import room
from align.preflight.weights import Size
from align.terminal.findings import Findings


@pytest.mark.parametrize(
    ("free", "level"), [(2_000_000, "note"), (1_700_000, "warning"), (1_599_999, "error")]
)
def test_room_for_checkpoints_and_the_model(free, level, monkeypatch, tmp_path):
    """Of 100,000 weights, all trained: 3 checkpoints of 1.2 MB at once, no more than are written;
    here a pass has one, and the model takes 0.4 MB.
    """
    used = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: used._replace(free=free))
    config = sft(batch=4, checkpoints=Checkpoints(every=2, keep=2))
    size = Size(whole=100_000, trained=100_000)
    found = Findings()
    room.check(subject(config, answered(problems()), out=tmp_path), found, size)
    assert [each.level for each in found.found] == [level]


@pytest.mark.parametrize(
    ("have", "every", "megabytes"),
    [
        ([], 2, 3 * 1.2 + 0.4),  # of 12 steps: 2, 4, 6, 8 and 10, two kept and one on its way
        ([2], 2, 2 * 1.2 + 0.4),
        ([4, 6], 2, 1.2 + 0.4),
        ([8, 10], 2, 0.4),  # the model is all that is left to write
        ([10], 0, 0.4 + 1.2),  # SIGTERM may come again
    ],
)
def test_checkpoints_that_are_there_take_no_more_room(
    have, every, megabytes, monkeypatch, tmp_path
):
    """A run that a full disk has ended goes on as soon as what is left to be written fits."""
    config = sft(batch=1, checkpoints=Checkpoints(every=every, keep=2))
    for step in have:
        (tmp_path / config.name / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    size, used = Size(whole=100_000, trained=100_000), shutil.disk_usage("/")
    for free, level in ((megabytes * 1e6 + 1, "warning"), (megabytes * 1e6 - 1, "error")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, n=free: used._replace(free=int(n)))
        looked = subject(config, answered(problems()), out=tmp_path)
        assert levels(room.check, looked, size=size)[0] == [(level, "disk")], free


def test_what_a_kill_left_half_written_makes_room(monkeypatch, tmp_path):
    config, used = sft(), shutil.disk_usage("/")
    half = tmp_path / config.name / ".model.partial"
    half.mkdir(parents=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: used._replace(free=1_500_000))
    looked = subject(config, answered(problems()), out=tmp_path)
    size = Size(whole=100_000, trained=100_000)
    assert levels(room.check, looked, size=size)[0] == [("error", "disk")]
    (half / "model.safetensors").write_bytes(bytes(300_000))
    assert levels(room.check, looked, size=size)[0] == [("warning", "disk")]


def test_a_folder_that_cannot_be(tmp_path):
    room.check_writable(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"is a file: .* --out"):
        room.check_writable(tmp_path / "file" / "stage")
    with pytest.raises(FolderError, match=r"/proc/sys takes no file \(.*--out"):
        room.check_writable(Path("/proc/sys/there"))
