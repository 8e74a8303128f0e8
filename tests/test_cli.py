"""What a user types: quick help, and mistakes answered with what to type instead."""

import json
import os
import subprocess
import sys

import pytest
import runs

import data
import rewards
from align import cli, recipe
from align.chain.run import ChainRun
from align.cli import StageRun
from align.config import Grpo, Sft
from align.recipe import Recipe

# What these take is no recipe: a run folder, a model, a machine.
WITHOUT = {"report.py", "bench.py", "doctor.py"}
SCRIPTS = sorted({path.name for path in (runs.REPOSITORY / "scripts").glob("*.py")} - WITHOUT)


def _script(name):
    return str(runs.REPOSITORY / "scripts" / name)


def _recipe(name):
    """Flags for a recipe with a stage of the script's kind."""
    if name == "sample.py":
        return ["--recipe", "tiny-r1", "--stage", "rejection"]
    if name == "distill.py":
        return ["--recipe", "tiny-distill"]
    return ["--recipe", "tiny-rlhf" if name in WITH_PAIRS else "tiny"]


def _timed(command, folder, **environment):
    """(exit code, stdout, stderr, seconds of processor time, children's included).

    Processor time, not the clock's: the limits below are of an idle machine.
    """
    out, err = folder / "out", folder / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=runs.environment() | environment,
            stdout=stdout,
            stderr=stderr,
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    return child.returncode, out.read_text(), err.read_text(), seconds


# A recipe with a stage of each script's kind.
WITH_PAIRS = ("dpo.py", "kto.py", "ppo.py", "reward_model.py")


@pytest.mark.parametrize("with_recipe", [False, True], ids=["plain", "recipe"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_answers_in_under_a_second(tmp_path, name, with_recipe):
    """Median of three."""
    recipes = _recipe(name) if with_recipe else []
    runs_ = [
        _timed([sys.executable, _script(name), *recipes, "--help"], tmp_path) for _ in range(3)
    ]
    assert [code for code, *_ in runs_] == [0, 0, 0]
    assert sorted(seconds for *_, seconds in runs_)[1] < 1.0
    _, text, _, _ = runs_[0]
    for known in recipe.names():
        assert known in text
    flags = ("--sampling.max-tokens", "optim.lr")
    assert any(flag in text.lower() for flag in flags) == with_recipe


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_loads_no_torch(tmp_path, name):
    code = (
        "import runpy, sys\n"
        "sys.argv = [*sys.argv[1:], '--help']\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'sympy'} & set(sys.modules)\n"
        "    print(end.code, sorted(heavy), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, _script(name), *_recipe(name)]
    _, text, err, _ = _timed(command, tmp_path)
    assert err == "0 []\n"
    assert "--recipe" in text


def test_accelerate_launch_without_weights_fails_in_ten_seconds_with_one_sentence(tmp_path):
    """The hub is given 4 s elsewhere; what is left is for the two processes."""
    command = [runs.BIN / "accelerate", "launch", _script("grpo.py"), "--recipe", "qwen0.5b"]
    code, _, err, seconds = _timed(command, tmp_path, HF_HUB_OFFLINE="1")
    assert code != 0
    assert seconds < 10 - 4.5
    ours, _, launchers = err.partition("Traceback")
    (sentence,) = [line for line in ours.splitlines() if line.startswith("error:")]
    assert sentence == ours.strip().splitlines()[-1]
    assert "no weights of Qwen/Qwen2.5-0.5B-Instruct" in sentence
    assert "hf download Qwen/Qwen2.5-0.5B-Instruct --local-dir FOLDER" in sentence
    assert sentence.endswith("--model FOLDER")
    assert "CalledProcessError" in launchers or not launchers  # accelerate's own


def _fails(capsys, *args, stage=Grpo):
    """What a stage's script says on stderr when it ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.parse(
            StageRun,
            lambda run: recipe.load(run.recipe).stage(stage, run.stage),
            doc="A test.",
            args=list(args),
        )
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def _parse(*args, stage=Grpo):
    return cli.parse(
        StageRun,
        lambda run: recipe.load(run.recipe).stage(stage, run.stage),
        doc="A test.",
        args=["--recipe", "tiny", *args],
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--optim.lrr", "--optim.lr"),
        ("--sampling.max-token", "--sampling.max-tokens"),
        ("--minibatch", "--minibatches"),
        ("--resum", "--resume"),
    ],
)
def test_an_unknown_flag_names_the_nearest(capsys, typed, meant):
    said = _fails(capsys, "--recipe", "tiny", typed, "3")
    assert f"Unrecognized options: {typed}" in said
    assert meant + " " in said.partition("Perhaps you meant")[2]


def test_an_unknown_recipe_names_the_nearest(capsys):
    said = _fails(capsys, "--recipe", "tny")
    assert said.startswith("error: no recipe called 'tny'; did you mean tiny?")


def test_a_missing_recipe_is_named(capsys):
    assert "--recipe" in _fails(capsys)


def test_a_value_of_the_wrong_kind_names_its_flag(capsys):
    assert "Error parsing --prompts" in _fails(capsys, "--recipe", "tiny", "--prompts", "many")
    said = _fails(capsys, "--recipe", "tiny", "--reduction", "mean")
    assert "--reduction" in said and "dapo" in said


def test_overrides_change_their_field_alone():
    run, config = _parse("--optim.lr", "3e-4", "--resume", "--out", "there", "--lora.rank", "2")
    expected = recipe.load("tiny").stage(Grpo)
    assert (run.resume, str(run.folder)) == (True, "there")
    assert (config.optim.lr, config.lora.rank) == (3e-4, 2)
    assert config.optim.schedule == expected.optim.schedule
    assert config.reward is expected.reward
    assert config.data == expected.data


def test_without_overrides_the_recipes_own_stage_comes_back():
    run, config = _parse()
    assert config == recipe.load("tiny").stage(Grpo)
    assert (run.resume, run.check, run.report_to) == (False, False, "none")
    assert run.folder.as_posix() == "runs/tiny"


def test_data_takes_a_file_a_name_or_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text('{"prompt": "1 + 1", "solution": "2"}\n')
    assert _parse("--data", "mine.jsonl")[1].data == data.Local(path="mine.jsonl")
    assert _parse("--data", "gsm8k")[1].data == data.GSM8K()
    assert _parse("--data", "arithmetic?size=5")[1].data == data.Arithmetic(size=5)


def test_data_that_is_not_there_names_the_flag(capsys):
    said = _fails(capsys, "--recipe", "tiny", "--data", "none.jsonl")
    assert "--data: no file none.jsonl" in said
    said = _fails(capsys, "--recipe", "tiny", "--data", "gsm9k")
    assert "did you mean gsm8k?" in said


def test_several_stages_of_a_kind_need_a_name(capsys, monkeypatch):
    problems = data.Arithmetic(size=4)
    several = Recipe(
        name="several",
        stages=(
            Sft(model="some/model", data=problems),
            Grpo(name="one", model="@sft", data=problems, reward=rewards.Accuracy()),
            Grpo(name="two", model="@one", data=problems, reward=rewards.Accuracy()),
        ),
    )
    monkeypatch.setattr(recipe, "load", lambda name: several)
    said = _fails(capsys, "--recipe", "several")
    assert said == (
        "error: recipe several has 2 grpo stages: choose one with --stage (grpo stages: one, two)"
    )
    assert "no grpo stage called 'tow'" in _fails(capsys, "--recipe", "several", "--stage", "tow")
    _, config = _parse("--stage", "two")
    assert config.name == "two"
    _, config = _parse(stage=Sft)
    assert config.name == "sft"


def test_every_stage_of_a_chain_has_its_own_flags(monkeypatch):
    from align.chain import run as chain

    args = "--recipe tiny --grpo.steps 2 --sft.optim.lr 1e-3 --evaluation.limit 3"
    run, config = cli.parse(
        ChainRun, lambda run: chain._as_config(recipe.load(run.recipe)), doc="", args=args.split()
    )
    assert run.recipe == "tiny"
    assert (config.grpo.steps, config.sft.optim.lr, config.evaluation.limit) == (2, 1e-3, 3)
    monkeypatch.setattr("sys.argv", ["run.py", *args.split(), "--grpo.lora.rank=4"])
    assert chain._overrides(["sft", "grpo", "evaluation"]) == {
        "sft": ["--optim.lr", "1e-3"],
        "grpo": ["--steps", "2", "--lora.rank=4"],
        "evaluation": ["--limit", "3"],
    }


def test_a_missing_upstream_stage_is_an_error_within_seconds(tmp_path):
    command = [sys.executable, _script("grpo.py"), "--recipe", "tiny", "--out", "there"]
    code, out, err, seconds = _timed(command, tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        "error: stage 'sft' has written no model in there/sft yet; run it first: "
        "python scripts/run.py --recipe tiny --out there\n"
    )
    assert seconds < 2
    assert not (tmp_path / "there").exists()


# From here on through the nursery: what needs torch.


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
    assert "solution" in said and "1" in said
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
