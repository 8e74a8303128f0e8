"""What a stage's script does with its flags, from the check to a finished run."""

import json

import pytest
import runs


def _launch(folder, *args, kind="grpo", code=0):
    answer = runs.nursery().run(kind, args, log=folder / "log")
    text = (folder / "log").read_text()
    assert answer["codes"] == [code], text
    return text


TINY = ("--recipe", "tiny", "--model", "random:recipes/tiny_model")


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_check_validates_shows_the_arithmetic_and_writes_nothing(tmp_path, kind):
    out = tmp_path / "run"
    text = _launch(tmp_path, *TINY, "--out", out, "--check", kind=kind)
    assert not out.exists()
    words = ("optimizer steps", "tokens", "memory", "80,448 parameters")
    for word in (*words, *(("completions",) if kind == "grpo" else ())):
        assert word in text
    assert "step 1/" not in text


def test_check_finds_a_bad_row(tmp_path):
    good = {"prompt": [{"role": "user", "content": "1 + 1"}], "solution": "2"}
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (good, good | {"solution": ""})))
    out = tmp_path / "run"
    text = _launch(tmp_path, *TINY, "--out", out, "--check", "--data", file, code=2)
    (said,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert "solution" in said and "2nd row" in said
    assert not out.exists()


def test_a_local_file_trains(tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"{i} + {i}"}], "solution": str(2 * i)}
        for i in range(8)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _launch(tmp_path, *TINY, "--out", tmp_path / "run", "--data", file, "--steps", "2")
    stage = tmp_path / "run" / "grpo"
    prompts = {row["prompt"] for row in runs.rows(stage / "samples.jsonl")}
    assert prompts == {f"{i} + {i}" for i in range(8)}
    config = json.loads((stage / "config.json").read_text())
    assert config["data"]["path"] == str(file)
    assert (config["steps"], config["kind"]) == (2, "grpo")


def test_a_run_folder_in_use_is_refused_unless_resumed(tmp_path):
    args = [*TINY, "--out", tmp_path / "run", "--steps", "1"]
    _launch(tmp_path, *args)
    before = _times(tmp_path / "run")
    text = _launch(tmp_path, *args, code=2)
    (said,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert said == (
        f"error: {tmp_path}/run/grpo already holds a run: add --resume to continue it, choose "
        "another folder with --out, or delete it"
    )
    text = _launch(tmp_path, *args, "--resume")
    assert f"{tmp_path}/run/grpo is complete already; delete it to train again" in text
    assert _times(tmp_path / "run") == before


def _times(folder):
    """When each file was written, but for the one that names the process at work."""
    files = [path for path in folder.rglob("*") if path.name != ".pid"]
    return {path: path.stat().st_mtime_ns for path in files}


def test_resuming_what_never_began_begins_it(tmp_path):
    _launch(tmp_path, *TINY, "--out", tmp_path / "run", "--steps", "1", "--resume")
    assert runs.finished(tmp_path / "run" / "grpo")


def test_damaged_checkpoints_end_with_a_sentence(tmp_path):
    args = runs.grpo(tmp_path, "--steps", "4")
    runs.nursery().run("grpo", args, log=tmp_path / "log", hurt=["between_minibatches", 15])
    for file in (tmp_path / "grpo" / "checkpoints").rglob("state-0.safetensors"):
        file.write_bytes(b"")
    text = _launch(tmp_path, *args, "--resume", code=2)
    (said,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert "every checkpoint in" in said and "state-0.safetensors has 0 bytes" in said
    assert "delete the stage's folder to start it again" in said
