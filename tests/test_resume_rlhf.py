"""A reward model, DPO, KTO or PPO run that is killed and resumed ends as one that was not.

The runs are those of the recipe `tiny-rlhf`; its SFT and its reward model are made once.
"""

import json
import random
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import runs
import torch
from safetensors.torch import load_file

KILLS = 5
OPTIMIZER_STEPS = {"reward_model": 8, "dpo": 10, "ppo": 32}  # of the whole run


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A run that nothing happened to: its stage's folder, and the seconds that it took."""

    stage: Path
    seconds: float


def args(kind, out, *more):
    return ["--recipe", "tiny-rlhf", "--out", out, *more]


def finish(kind, out, *more, log, **extra):
    answer = runs.nursery().run(kind, args(kind, out, *more), log=log, **extra)
    assert answer["codes"] == [0], log.read_text()
    return answer["seconds"]


def kill(kind, out, *more, log, **extra):
    answer = runs.nursery().run(kind, args(kind, out, *more), log=log, **extra)
    assert answer["codes"] == [-signal.SIGKILL], log.read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run folder with the stages that the others start from."""
    out = tmp_path_factory.mktemp("made")
    finish("sft", out, log=out / "log")
    finish("reward_model", out, log=out / "log")
    return out


@pytest.fixture(scope="module")
def adapted(made, tmp_path_factory):
    """The same with a reward model of adapters."""
    out = begun(made, tmp_path_factory.mktemp("adapted"), "reward_model")
    finish("reward_model", out, "--lora.rank", "4", log=out / "log")
    return out


@pytest.fixture(scope="module")
def uninterrupted(made, tmp_path_factory):
    """Of each kind, run once: the fixture is a function."""
    known = {}

    def of(kind):
        if kind not in known:
            out = begun(made, tmp_path_factory.mktemp(kind), kind)
            seconds = finish(kind, out, log=out / "log")
            known[kind] = Whole(stage=out / kind, seconds=seconds)
        return known[kind]

    return of


def begun(made, out, kind):
    """A run folder in which the stages before this one are done, and nothing is remembered of the
    reference.
    """
    for name in ("sft",) if kind == "reward_model" else ("sft", "reward_model"):
        shutil.copytree(made / name, out / name, dirs_exist_ok=True)
    cache = Path(runs.environment()["XDG_CACHE_HOME"]) / "align" / "reference"
    shutil.rmtree(cache, ignore_errors=True)
    return out


def newest_checkpoint(stage):
    """(weights and moments by name, what the stage remembers)."""
    folder = stage / "checkpoints" / runs.checkpoints(stage)[-1]
    manifest = json.loads((folder / "manifest.json").read_text())
    return load_file(folder / "state-0.safetensors"), manifest["stage"]


def check_equal(stage, reference):
    """Weights and logs, the last checkpoint to the bit, and what a stage writes beside."""
    runs.check_equal(stage, reference)
    assert runs.checkpoints(stage) == runs.checkpoints(reference)
    (mine, remembered), (theirs, expected) = map(newest_checkpoint, (stage, reference))
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name
    assert remembered == expected
    if stage.name == "ppo":
        assert {"beta", "penalty", "cursor"} <= remembered.keys()
        critic = [name for name in theirs if "scorer" in name or "head" in name]
        assert {"weight", "moment"} <= {name.split("/")[0] for name in critic}
    if stage.name == "reward_model":
        held = [json.loads((s / "heldout.json").read_text()) for s in (stage, reference)]
        assert held[0] == held[1] and held[0]["pairs"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPTIMIZER_STEPS)
def test_killed_at_random_moments_runs_end_with_the_weights_of_the_uninterrupted_one(
    kind, made, uninterrupted, tmp_path
):
    """Two at a random optimizer step, one of either half, the others by the clock: from the end of
    loading, which takes most of so short a run, to the export.
    """
    whole = uninterrupted(kind)
    chance = random.Random(f"20261120 {kind}")
    half = OPTIMIZER_STEPS[kind] // 2
    resumed_after = []
    for i in range(KILLS):
        out = begun(made, tmp_path / str(i), kind)
        log = out / "log"
        if i < 2:
            step = chance.randint(1, half) + i * half
            kill(kind, out, hurt=["between_minibatches", step], log=log)
        else:
            share = 0.45 + 0.5 * (i - 2 + chance.random()) / (KILLS - 2)
            _kill_at(kind, out, whole.seconds * share, made=made, log=log)
        finish(kind, out, "--resume", log=log)
        check_equal(out / kind, whole.stage)
        found = [line for line in log.read_text().splitlines() if "resumed" in line]
        resumed_after += found or ["the start"]
    assert len(set(resumed_after)) > 1, resumed_after  # the kills did fall into different places


def _kill_at(kind, out, moment, *, made, log):
    """SIGKILL after so many seconds of processor time, sooner if the run ends before."""
    codes = [0]
    while codes == [0]:
        shutil.rmtree(out)
        begun(made, out, kind)
        answer = runs.nursery().run(kind, args(kind, out), log=log, kill_after=moment)
        codes, moment = answer["codes"], moment * 0.8
    assert codes == [-signal.SIGKILL], log.read_text()


@pytest.mark.parametrize(
    ("kind", "hurt", "after"),
    [
        ("reward_model", ["between_minibatches", 8], 6),
        ("reward_model", ["during_export"], 6),
        ("dpo", ["between_minibatches", 8], 6),
        ("dpo", ["while_caching"], 0),
        ("kto", ["between_minibatches", 8], 6),
        ("ppo", ["between_minibatches", 4 * 6 + 3], 6),
        ("ppo", ["while_writing", 2], 2),
        ("ppo", ["between_rollout_and_updates", 5], 4),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_killed_at_the_worst_places(kind, hurt, after, made, uninterrupted, tmp_path):
    whole = uninterrupted(kind)
    out, log = begun(made, tmp_path, kind), tmp_path / "log"
    kill(kind, out, log=log, hurt=hurt)
    assert not (out / kind / "done.json").exists()
    finish(kind, out, "--resume", log=log)
    assert (f"resumed after step {after}" in log.read_text()) == bool(after)
    check_equal(out / kind, whole.stage)


OTHERS = {
    "shared trunk, inside the warm-up": (
        ["--critic", "shared", "--critic-model", "", "--critic-warmup", "3"], 2,
    ),
    "penalty": (["--objective", "penalty", "--kl", "loss", "--entropy", "0.01"], 4),
    "one base": (["--critic", "adapters", "--critic-model", "", "--lora.rank", "4"], 4),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_other_settings_of_ppo_resume_exactly_too(case, made, adapted, tmp_path):
    more, after = OTHERS[case]
    more = [*more, "--steps", "6"]
    if case == "one base":  # the reward model's adapters are on it too
        made = adapted
    log = tmp_path / "log"
    whole = begun(made, tmp_path / "whole", "ppo")
    finish("ppo", whole, *more, log=log)
    out = begun(made, tmp_path / "killed", "ppo")
    kill("ppo", out, *more, log=log, hurt=["between_minibatches", 4 * after + 2])
    finish("ppo", out, *more, "--resume", log=log)
    assert f"resumed after step {after}" in log.read_text()
    check_equal(out / "ppo", whole / "ppo")


def test_the_adaptive_state_did_move(uninterrupted):
    """What is compared above is not a constant: beta went down by halves."""
    rows, _ = runs.logs(uninterrupted("ppo").stage)
    betas = [row["beta"] for row in rows]
    assert betas[0] == 0.05 and betas[-1] < 0.01
    assert newest_checkpoint(uninterrupted("ppo").stage)[1]["beta"] == betas[6]
