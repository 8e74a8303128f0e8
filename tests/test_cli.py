"""What a user types: flags that change their field alone, and mistakes answered with what to type
instead.
"""

import pytest

import data
import rewards
from align import cli, recipe
from align.chain.run import ChainRun
from align.cli import StageRun
from align.config import Grpo, Sft
from align.recipe import Recipe


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
