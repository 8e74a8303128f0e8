"""Whole stages that train with a server: to the end, and through what may become of it."""

import json
import os
import signal

import pytest
import runs
import tiny
import torch
from stand_in import Learner

STEPS = ("--steps", "3", "--checkpoints.every", "1")


@pytest.fixture
def learner():
    made = Learner(tiny.CHAT_FOLDER, tiny.chat_tokenizer())
    yield made
    made.close()


def args(learner, out, *more, recipe="tiny"):
    flags = f"--recipe {recipe} --engine.kind server --engine.url {learner.url} "
    flags += "--engine.patience 1"
    return [*flags.split(), "--out", out, *more]


def run(kind, given, folder, *, expect=0, **more):
    answer = runs.nursery().run(kind, given, log=folder / "log", **more)
    text = (folder / "log").read_text()
    assert set(answer["codes"]) == {expect}, text
    return text


GRPO = ("--model", "random:recipes/tiny_model", *STEPS)


def test_grpo_trains_with_it(learner, tmp_path):
    """Each step is sampled with the weights at its beginning, and they are the trainer's."""
    run("grpo", args(learner, tmp_path, *GRPO), tmp_path)
    metrics = runs.rows(tmp_path / "grpo" / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3]
    assert all(0 < row["mismatch/logprob"] < 0.01 for row in metrics)
    assert len(learner.loaded) == len(set(learner.loaded)) == 3
    used = [weights for _, _, weights in learner.asked]
    assert used == [weights for weights in learner.loaded for _ in range(16)]
    assert not (tmp_path / "grpo" / "sync").exists()


def test_a_server_that_keeps_its_weights_is_refused(learner, tmp_path):
    """Before the first update: it says that it has loaded them, and samples from others."""
    with torch.no_grad():
        learner.model.lm_head.weight.mul_(100)
    learner.routes["/collective_rpc"] = lambda _: {"results": [None]}
    text = run("grpo", args(learner, tmp_path, *GRPO), tmp_path, expect=2)
    assert "step 1: the server's log-probs are" in text.replace("\n", " ")
    assert runs.rows(tmp_path / "grpo" / "metrics.jsonl") == []


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("keeps", [(), ("lm_head.weight",)], ids=["sane", "stale"])
def test_a_head_that_stays_behind_is_refused(learner, tmp_path, keeps, ahead):
    """Once the others have moved on: at the first sync it is that of all the others. Weights that
    go there as they should do not end the run, however far they move.
    """
    learner.keeps = keeps
    far = ("--optim.lr", "0.03", "--optim.warmup", "0", "--ahead", str(ahead))
    given = args(learner, tmp_path, *GRPO, *far)
    text = run(
        "grpo", given, tmp_path, expect=2 if keeps else 0, hurt=["server_hurts.all_learn"]
    ).replace("\n", " ")
    assert ("step 2: the server's log-probs are" in text) == bool(keeps)
    metrics = runs.rows(tmp_path / "grpo" / "metrics.jsonl")
    assert len(metrics) == (1 if keeps else 3)


def test_killed_in_the_middle_and_started_again(learner, tmp_path):
    """The run ends with the way on, and resumed it ends as if nothing had been."""
    (tmp_path / "whole").mkdir()
    run("grpo", args(learner, tmp_path / "whole", *GRPO), tmp_path)
    draw, left = learner.draw, iter(range(1, 10**6))
    learner.routes["/v1/completions"] = lambda body: (
        draw(body) if next(left) <= 16 + 7 else (None, {})
    )
    given = args(learner, tmp_path, *GRPO)
    text = run("grpo", given, tmp_path, expect=2)
    said = text[text.index("step 2: ") :]
    assert learner.url in said and "Start it again with" in said and "--resume" in said
    assert "Traceback" not in text
    learner.routes["/v1/completions"] = draw
    learner.start_again()
    run("grpo", [*given, "--resume"], tmp_path)
    runs.check_equal(tmp_path / "grpo", tmp_path / "whole" / "grpo")


def test_two_processes_share_it(learner, tmp_path):
    """One of them sends the weights; when the server is gone both end, after a checkpoint of the
    step's beginning.
    """
    run("grpo", args(learner, tmp_path / "whole", *GRPO), tmp_path, ranks=2)
    assert len(learner.loaded) == 3 and len(learner.asked) == 3 * 16
    assert len({seed for seed, _, _ in learner.asked}) == 3 * 16
    draw, left = learner.draw, iter(range(1, 10**6))
    learner.routes["/v1/completions"] = lambda body: (
        draw(body) if next(left) <= 16 + 7 else (None, {})
    )
    given = args(learner, tmp_path / "cut", *GRPO, "--checkpoints.every", "0")
    text = run("grpo", given, tmp_path, ranks=2, expect=2)
    assert "step 2: " in text and "Start it again with" in text
    assert runs.checkpoints(tmp_path / "cut" / "grpo") == ["step-000001"]
    learner.routes["/v1/completions"] = draw
    learner.start_again()
    run("grpo", [*given, "--resume"], tmp_path, ranks=2)
    runs.check_equal(tmp_path / "cut" / "grpo", tmp_path / "whole" / "grpo")


def test_sigterm_while_it_samples(learner, tmp_path):
    """At once: a checkpoint of the step's beginning, and no more is asked."""
    draw, left, pids = learner.draw, iter(range(1, 10**6)), tmp_path / "pid"

    def answer(body):
        if next(left) == 16 + 3:
            os.kill(int(pids.read_text()), signal.SIGTERM)
        return draw(body)

    learner.routes["/v1/completions"] = answer
    hurt = ["server_hurts.tell_pid", str(pids)]
    run("grpo", args(learner, tmp_path, *GRPO), tmp_path, expect=143, hurt=hurt)
    assert [row["step"] for row in runs.rows(tmp_path / "grpo" / "metrics.jsonl")] == [1]
    manifests = (tmp_path / "grpo" / "checkpoints").glob("*/manifest.json")
    assert {json.loads(one.read_text())["step"] for one in manifests} == {1}


def test_a_student_trains_with_it(learner, tmp_path):
    teacher = "layers:1:random:recipes/tiny_model"
    more = ("--model", "random:recipes/tiny_model", "--teacher", teacher)
    given = args(learner, tmp_path, *more, "--steps", "2", recipe="tiny-distill")
    run("distill", given, tmp_path)
    assert len(learner.loaded) == 2


def test_ppo_trains_with_it(learner, tmp_path):
    for kind in ("sft", "reward_model"):
        run(kind, ["--recipe", "tiny-rlhf", "--out", tmp_path], tmp_path)
    run("ppo", args(learner, tmp_path, "--steps", "2", recipe="tiny-rlhf"), tmp_path)
    assert len(learner.loaded) == 2
    metrics = runs.rows(tmp_path / "ppo" / "metrics.jsonl")
    assert all(0 < row["mismatch/logprob"] < 0.02 for row in metrics)
