"""What a script answers at once: its help, and that something is missing."""

import sys

import pytest
import runs

from align import recipe

# What these take is no recipe: a run folder, a model, a machine.
WITHOUT = {"report.py", "bench.py", "doctor.py"}
SCRIPTS = sorted({path.name for path in (runs.REPOSITORY / "scripts").glob("*.py")} - WITHOUT)
# Their stages are in one recipe.
WITH_PAIRS = ("dpo.py", "kto.py", "ppo.py", "reward_model.py")


def _script(name):
    return str(runs.REPOSITORY / "scripts" / name)


def _recipe(name):
    """Flags for a recipe with a stage of the script's kind."""
    if name == "sample.py":
        return ["--recipe", "tiny-r1", "--stage", "rejection"]
    if name == "distill.py":
        return ["--recipe", "tiny-distill"]
    return ["--recipe", "tiny-rlhf" if name in WITH_PAIRS else "tiny"]


@pytest.mark.parametrize("with_recipe", [False, True], ids=["plain", "recipe"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_answers_in_under_a_second(tmp_path, name, with_recipe):
    """Asked again where the machine was busy."""
    command = [sys.executable, _script(name), *(_recipe(name) if with_recipe else []), "--help"]
    for _ in range(3):
        code, text, _, seconds = runs.timed(command, tmp_path)
        assert code == 0
        if seconds < 1.0:
            break
    assert seconds < 1.0
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
    _, text, err, _ = runs.timed(command, tmp_path)
    assert err == "0 []\n"
    assert "--recipe" in text


def test_accelerate_launch_without_weights_fails_in_ten_seconds_with_one_sentence(tmp_path):
    """The hub is given 4 s elsewhere; what is left is for the two processes."""
    command = [runs.BIN / "accelerate", "launch", _script("grpo.py"), "--recipe", "qwen0.5b"]
    code, _, err, seconds = runs.timed(command, tmp_path, HF_HUB_OFFLINE="1")
    assert code != 0
    assert seconds < 10 - 4.5
    ours, _, launchers = err.partition("Traceback")
    (sentence,) = [line for line in ours.splitlines() if line.startswith("error:")]
    assert sentence == ours.strip().splitlines()[-1]
    assert "no weights of Qwen/Qwen2.5-0.5B-Instruct" in sentence
    assert "hf download Qwen/Qwen2.5-0.5B-Instruct --local-dir FOLDER" in sentence
    assert sentence.endswith("--model FOLDER")
    assert "CalledProcessError" in launchers or not launchers  # accelerate's own


def test_a_missing_upstream_stage_is_an_error_within_seconds(tmp_path):
    command = [sys.executable, _script("grpo.py"), "--recipe", "tiny", "--out", "there"]
    code, out, err, seconds = runs.timed(command, tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        "error: stage 'sft' has written no model in there/sft yet; run it first: "
        "python scripts/run.py --recipe tiny --out there\n"
    )
    assert seconds < 2
    assert not (tmp_path / "there").exists()
