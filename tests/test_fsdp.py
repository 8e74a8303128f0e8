"""FSDP2: two processes that share out one model train what one process trains, and go on from one
another's checkpoints.
"""

import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import alike
import pytest
import runs
import torch
import yaml
from safetensors.torch import load_file

from align.files import intact
from align.processes import sharding

MODEL = ["--model", "random:recipes/tiny_model"]
# At its usual epsilon of 1e-8 Adam makes whole steps of gradients that are rounding and no more.
TINY = ["--recipe", "tiny", *MODEL, "--optim.eps", "1e-3"]
RLHF = ["--recipe", "tiny-rlhf", *MODEL, "--optim.eps", "1e-3"]
DISTILL = ["--recipe", "tiny-distill", "--model", "layers:1:random:recipes/tiny_model"]
DISTILL += ["--teacher", "random:recipes/tiny_model", "--optim.eps", "1e-3"]
# Each five steps or more; uneven last batches, processes with fewer packs than the other, or none.
STAGES = {
    "sft": ("sft", [*TINY, "--batch", "4", "--epochs", str(17 / 40)]),
    "reward model": ("reward_model", [*RLHF, "--batch", "3", "--epochs", "0.5"]),
    "reward model, adapters": (
        "reward_model",
        [*RLHF, "--epochs", "0.6", "--lora.rank", "4", "--optim.lr", "1e-2"],
    ),
    "dpo": ("dpo", [*RLHF, "--batch", "3", "--epochs", str(13 / 40)]),
    "kto": ("kto", [*RLHF, "--batch", "7", "--epochs", "0.4"]),
    "grpo": ("grpo", [*TINY, "--steps", "5", "--minibatches", "2", "--iterations", "2"]),
    "grpo, 3 prompts, reference": (
        "grpo",
        [*TINY, "--steps", "5", "--prompts", "3", "--beta", "0.1", "--refill", "1"],
    ),
    "grpo, 1 prompt, adapters": (
        "grpo",
        [*TINY, "--steps", "5", "--prompts", "1", "--beta", "0.1", "--refill", "1",
         "--lora.rank", "4", "--optim.lr", "1e-2"],
    ),
    "ppo": ("ppo", [*RLHF, "--steps", "5"]),
    "ppo, 3 prompts, whitened": (
        "ppo",
        [*RLHF, "--steps", "5", "--prompts", "3", "--minibatches", "1", "--whiten", "True"],
    ),
    "ppo, one trunk": ("ppo", [*RLHF, "--steps", "5", "--critic", "shared", "--critic-model", ""]),
    "distill": ("distill", [*DISTILL, "--steps", "5", "--prompts", "3"]),
}  # fmt: skip


@functools.cache
def reward_model():
    """A run folder with the reward model that PPO scores by."""
    out = Path(tempfile.mkdtemp(dir=runs.environment()["XDG_CACHE_HOME"]))
    args = [*RLHF, "--epochs", "0.2", "--out", out]
    answer = runs.nursery().run("reward_model", args, log=out / "log")
    assert answer["codes"] == [0], (out / "log").read_text()
    return out / "reward_model"


def train(kind, args, out, *, ranks=1, code=0, **more):
    """The stage's folder after a run; what was kept of a reference is forgotten before."""
    shutil.rmtree(Path(runs.environment()["XDG_CACHE_HOME"]) / "align/reference", True)
    if kind == "ppo":
        shutil.copytree(reward_model(), out / "reward_model", dirs_exist_ok=True)
    log = out.with_name(f"{out.name}.log")
    args = [*args, "--out", out]
    answer = runs.nursery().run(kind, args, ranks=ranks, log=log, **more)
    assert answer["codes"] == [code] * ranks, log.read_text()
    return out / kind


# Which take what others take, otherwise combined.
BY_HAND = ("grpo, 3 prompts, reference", "ppo, 3 prompts, whitened")


@pytest.mark.parametrize(
    "case", [pytest.param(one, marks=[pytest.mark.long] * (one in BY_HAND)) for one in STAGES]
)
def test_copies_and_shares_in_two_processes_train_what_one_process_trains(case, tmp_path):
    kind, args = STAGES[case]
    alone = train(kind, args, tmp_path / "alone")
    alike.moved(alone)
    assert len(runs.rows(alone / "metrics.jsonl")) >= 5
    for name, sharded in {"copies": False, "shares": True}.items():
        two = train(kind, args, tmp_path / name, ranks=2, sharded=sharded)
        alike.check_same(two, alone)
        if kind == "reward_model":
            mine, theirs = (
                json.loads((stage / "heldout.json").read_text()) for stage in (two, alone)
            )
            assert mine["successes"] == theirs["successes"]
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        if "adapters" in case:
            assert_same_adapters(two, alone)


def assert_same_adapters(stage, reference):
    mine, theirs = (
        load_file(one / "adapter" / one.name / "adapter_model.safetensors")
        for one in (stage, reference)
    )
    assert mine.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(mine[name], expected, rtol=1e-4, atol=1e-6)


def test_shares_are_written_by_the_process_that_holds_them(tmp_path):
    stage = train("sft", [*TINY, "--lora.rank", "4"], tmp_path / "two", ranks=2, sharded=True)
    folder = stage / "checkpoints" / runs.checkpoints(stage)[-1]
    files = [folder / f"state-{rank}.safetensors" for rank in range(2)]
    assert set(json.loads((folder / "manifest.json").read_text())["files"]) == {
        file.name for file in files
    }
    sizes = [file.stat().st_size for file in files]
    assert max(sizes) < 1.5 * min(sizes)


# Two processes under FSDP2, one, or two with a copy each.
LAYOUTS = {
    "shares": {"ranks": 2, "sharded": True},
    "one": {"ranks": 1},
    "copies": {"ranks": 2},
}
RESUMED = [*TINY, "--steps", "5", "--minibatches", "2", "--checkpoints.every", "2"]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("shares", "shares"),
        ("shares", "one"),
        ("one", "shares"),
        pytest.param("shares", "copies", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_in_any_number_of_processes(first, then, tmp_path):
    """All processes are killed in the fourth step; the checkpoint is that of the second."""
    out = tmp_path / "killed"
    killed = {"hurt": ["between_minibatches", 8], "code": -9}
    stage = train("grpo", RESUMED, out, **LAYOUTS[first], **killed)
    assert runs.checkpoints(stage) == ["step-000002"]
    train("grpo", [*RESUMED, "--resume"], out, **LAYOUTS[then])
    whole = train("grpo", RESUMED, tmp_path / "whole", **LAYOUTS[then])
    alike.moved(whole)
    if first == then:
        runs.check_equal(stage, whole)
    else:
        alike.check_same(stage, whole)


def test_a_limit_of_packs_does_not_part_the_processes(tmp_path):
    """A run that had to halve packs goes on in two: of three prompts one has two, the other one,
    and both go through the model equally often.
    """
    flags = [*TINY, "--steps", "4", "--prompts", "3", "--checkpoints.every", "2"]
    flags += ["--compute.patience", "20"]
    out = tmp_path / "killed"
    stage = train("grpo", flags, out, hurt=["between_minibatches", 4], code=-9)
    checkpoint = stage / "checkpoints" / "step-000002"
    about = intact.opened(checkpoint) | {"pack_limit": 40}
    intact.seal(checkpoint, {name: about[name] for name in about if name != intact.OWN})
    train("grpo", [*flags, "--resume"], out, ranks=2, sharded=True)
    alike.check_same(stage, train("grpo", flags, tmp_path / "whole"))


def test_every_example_shares_out_in_the_same_way():
    """What is tried here on a CPU is what GPUs and several machines are told."""
    told = {
        name: yaml.safe_load((runs.REPOSITORY / f"recipes/accelerate/{name}.yaml").read_text())
        for name in ("fsdp_cpu", "fsdp2", "multi_node")
    }
    assert told["fsdp2"]["fsdp_config"] == told["fsdp_cpu"]["fsdp_config"]
    assert told["multi_node"]["fsdp_config"] == told["fsdp_cpu"]["fsdp_config"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version: 2"),
        ({"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "shard over more GPUs"),
        (
            {"FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            "--compute.gradient-checkpointing",
        ),
    ],
)
def test_what_would_go_wrong_is_refused_by_name(environment, said, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(sharding.ShardingError, match=said):
        sharding.wanted(SimpleNamespace(num_processes=2))


def test_weights_are_loaded_on_every_process_whatever_the_launcher_says(monkeypatch):
    """Else a reference would be empty memory on all processes but the first."""
    for name in ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert sharding.wanted(SimpleNamespace(num_processes=2))
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert not sharding.wanted(SimpleNamespace(num_processes=1))
