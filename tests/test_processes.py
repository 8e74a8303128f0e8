"""Several processes train what one process trains: same weights, same figures, same samples."""

import json
import subprocess

import alike
import pytest
import runs
import torch


def _both(kind, tmp_path, args, **more):
    """The stage trained by one process and by two."""
    stages = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        answer = runs.nursery().run(
            kind, [*args, "--out", out], log=tmp_path / "log", ranks=ranks, **more
        )
        assert answer["codes"] == [0] * ranks, (tmp_path / "log").read_text()
        stages.append(out / kind)
    alike.moved(stages[0])
    return stages


# At its usual epsilon of 1e-8 Adam makes whole steps of gradients that are rounding and no more.
TINY = [*["--recipe", "tiny", "--model", "random:recipes/tiny_model", "--optim.eps", "1e-3"]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("sft", marks=pytest.mark.long), "grpo"])
def test_torchrun_with_two_processes_trains_what_one_trains(tmp_path, kind):
    args = [*TINY, *(["--steps", "3"] if kind == "grpo" else [])]
    alone = tmp_path / "alone"
    answer = runs.nursery().run(kind, [*args, "--out", alone], log=tmp_path / "log")
    assert answer["codes"] == [0], (tmp_path / "log").read_text()
    command = [runs.BIN / "torchrun", "--standalone", "--nproc_per_node", "2"]
    command += [runs.REPOSITORY / "scripts" / f"{kind}.py", *args, "--out", tmp_path / "two"]
    done = subprocess.run(
        command, cwd=tmp_path, env=runs.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stdout
    alike.moved(alone / kind)
    alike.check_same(tmp_path / "two" / kind, alone / kind)


@pytest.mark.parametrize(
    "more",
    [
        ["--minibatches", "2", "--iterations", "2"],
        ["--reduction", "grpo", "--advantage", "reinforce++"],
        ["--scale", "batch", "--beta", "0.1", "--entropy", "0.01"],
        ["--reduction", "dr_grpo", "--lora.rank", "4", "--optim.lr", "1e-2"],
        ["--compute.layout", "padded", "--compute.token-budget", "64"],
        ["--prompts", "3"],
        ["--prompts", "1"],
    ],
    ids=lambda more: more[0][2:] + "=" + more[1],
)
def test_grpo_settings_in_two_processes(tmp_path, more):
    """3 prompts give the second process fewer than the first, 1 prompt gives it none."""
    one, two = _both("grpo", tmp_path, [*TINY, "--steps", "2", *more])
    alike.check_same(two, one)


def test_each_process_scores_its_own_share_of_a_rollout(tmp_path):
    args = [*TINY, "--steps", "2", "--out", tmp_path / "two"]
    answer = runs.nursery().run(
        "grpo", args, ranks=2, log=tmp_path / "log", hurt=["record_scored", str(tmp_path)]
    )
    assert answer["codes"] == [0, 0], (tmp_path / "log").read_text()
    mine, theirs = (
        [json.loads(line) for line in (tmp_path / str(rank)).read_text().splitlines()]
        for rank in range(2)
    )
    for (step, rows), (_, others) in zip(mine, theirs, strict=True):
        assert len(rows) == len(others) == 2
        logged = [row for row in runs.rows(tmp_path / "two/grpo/samples.jsonl")
                  if row["step"] == step]  # fmt: skip
        assert {row["prompt_index"] for row in logged} == {*rows, *others}


def test_sft_with_a_last_batch_too_small_for_two_processes(tmp_path):
    """13 rows in batches of 4: the last batch is one row, which the first process takes."""
    args = [*TINY, "--batch", "4", "--epochs", str(13 / 40)]
    one, two = _both("sft", tmp_path, args)
    assert len(runs.rows(one / "metrics.jsonl")) == 4
    alike.check_same(two, one)


def test_refills_in_two_processes_draw_what_one_process_draws(tmp_path):
    """Row by row the same dead groups are replaced, also where one process has all of them."""
    args = [*TINY, "--steps", "3", "--refill", "2"]
    dead = list(range(0, 40, 2))
    one, two = _both("grpo", tmp_path, args, hurt=["dead_prompts", dead])
    alike.check_same(two, one)


def test_where_nothing_can_move_the_weights_all_processes_pass_over_the_step(tmp_path):
    """Every advantage is zero; a rank that waited for the others would hang."""
    args = [*TINY, "--steps", "2"]
    for ranks in (1, 2):
        answer = runs.nursery().run(
            "grpo",
            [*args, "--out", tmp_path / str(ranks)],
            log=tmp_path / "log",
            ranks=ranks,
            hurt=["equal_rewards"],
        )
        assert answer["codes"] == [0] * ranks, (tmp_path / "log").read_text()
        rows = runs.rows(tmp_path / str(ranks) / "grpo" / "metrics.jsonl")
        assert [(row["loss"], row["grad_norm"], row["tokens"]) for row in rows] == [(0, 0, 0)] * 2
    untouched = [alike.weights(tmp_path / str(ranks) / "grpo") for ranks in (1, 2)]
    for name, expected in untouched[0].items():
        torch.testing.assert_close(untouched[1][name], expected, rtol=0, atol=0)
