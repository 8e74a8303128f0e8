"""The loop: the rate's schedule, the guard before a step, and what is logged.

The stages are made up of a few lines, so that every expected number can be read off.
"""

import json
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from accelerate import Accelerator
from torch import nn

from align.config import Checkpoints, Compute, Optim
from align.packing import Completion, Group, pack
from align.training import optim
from align.training.batch import Batch
from align.training.optim import adamw
from align.training.update import NonFiniteError

LR = 8e-3


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [8, 8, 8, 8]),
        # A rise over 0.5 * 4 = 2 steps: 1/3 and 2/3 of the rate, then all of it.
        ("constant", 0.5, [8 / 3, 16 / 3, 8, 8]),
        ("linear", 0.0, [8, 6, 4, 2]),
        # After the rise of 1 step (half the rate), 0, 1/3 and 2/3 of the way down.
        ("linear", 0.25, [4, 8, 16 / 3, 8 / 3]),
        # 4 (1 + cos(pi s / 4)) for s = 0 .. 3; cos(pi / 4) = 0.70710678.
        ("cosine", 0.0, [8, 6.82842712, 4, 1.17157288]),
        # 4 (1 + cos(pi s / 3)) for s = 0, 1, 2: 8, 6, 2.
        ("cosine", 0.25, [4, 8, 6, 2]),
    ],
)
def test_schedule(schedule, warmup, expected):
    """Thousandths of a rate of 0.008, at four steps."""
    values = Optim(lr=LR, schedule=schedule, warmup=warmup)
    rates = [optim.schedule(values, step, 4) * LR * 1e3 for step in range(4)]
    assert rates == pytest.approx(expected, rel=1e-8)


def test_a_rate_is_never_negative():
    for schedule in ("linear", "cosine"):
        assert optim.schedule(Optim(lr=LR, schedule=schedule), 9, 4) == pytest.approx(0, abs=1e-12)


def test_weight_decay_spares_norms_and_biases():
    policy = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    policy[0].weight.data.fill_(1.0)
    policy[1].weight.data.fill_(1.0)
    policy[0].bias.data.fill_(1.0)
    optimizer = adamw(policy, Optim(lr=0.1, weight_decay=0.5))
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # No gradient: decay alone moves, by the factor 1 - 0.1 * 0.5.
    torch.testing.assert_close(policy[0].weight, torch.full((2, 2), 0.95))
    assert policy[0].bias.tolist() == policy[1].weight.tolist() == [1.0, 1.0]


def test_frozen_weights_are_not_the_optimizers():
    policy = nn.Linear(2, 2)
    policy.bias.requires_grad_(False)
    (group,) = adamw(policy, Optim()).param_groups
    assert [len(p) for p in group["params"]] == [2]
    assert group["params"][0] is policy.weight


class Toy:
    """Loss: sum over tokens of token * first weight, so the gradient is the sum of the tokens.

    `steps_of`: for each step its minibatches, each a list of packs, each a list of tokens.
    """

    optimizer_steps = 1

    def __init__(self, steps_of, *, passes=1, lr=0.125, value=None):
        self.steps_of, self.steps, self.passes = steps_of, len(steps_of), passes
        self.optimizer_steps = passes * max(len(minibatches) for minibatches in steps_of)
        self.value = value or (lambda weight, pack: weight * pack.target.float().sum())
        self.policy = nn.Linear(1, 1, bias=False)
        self.policy.weight.data.fill_(1.0)
        self.context = SimpleNamespace(
            accelerator=Accelerator(cpu=True, mixed_precision="no"), module=self.policy
        )
        self.config = SimpleNamespace(
            seed=0,
            optim=Optim(lr=lr, max_grad_norm=1e9),
            checkpoints=Checkpoints(every=0),
            compute=Compute(),
        )

    def collect(self, step):
        minibatches = [[one(tokens) for tokens in packs] for packs in self.steps_of[step - 1]]
        return Batch(minibatches=minibatches, columns=(), passes=self.passes)

    def loss(self, pack):
        value = self.value(self.policy.weight[0, 0], pack)
        return value, {"tokens_squared": pack.target.float().square().sum()}

    def state(self):
        return {}

    def load_state(self, state):
        pass

    def learned(self, metrics):
        pass

    def close(self):
        pass


def one(tokens):
    return pack([Group(prompt=[0], completions=[Completion(ids=tokens)])], token_budget=100)[0]


def run(toy, folder):
    """The rows of metrics.jsonl after a run with plain gradient descent."""
    optimizer = torch.optim.SGD(toy.policy.parameters(), lr=99.0)  # the schedule's is used instead
    with tiny.loop(toy, optimizer, folder) as loop:
        assert loop.run(resume=False)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_adds_its_packs_up_and_logs_means(tmp_path):
    """Packs (1, 2) and (3): loss 1*6, gradient 6, three tokens, mean square 14/3; the weight goes
    from 1 to 1 - 6/8 = 1/4. Step 2, pack (2): loss 1/4 * 2, gradient 2, weight 0.
    """
    toy = Toy([[[[1, 2], [3]]], [[[2]]]])
    first, second = run(toy, tmp_path)
    assert (first["loss"], first["grad_norm"], first["tokens"]) == (6.0, 6.0, 3.0)
    assert first["tokens_squared"] == pytest.approx(14 / 3)
    assert (second["loss"], second["grad_norm"], second["tokens"]) == (0.5, 2.0, 1.0)
    assert second["tokens_squared"] == 4.0
    assert [row["step"] for row in (first, second)] == [1, 2]
    assert first["steps"] == 2
    assert toy.policy.weight.item() == 0.0


def test_the_cut_into_packs_changes_nothing(tmp_path):
    rows = []
    for name, packs in {"one": [[1, 2, 3]], "two": [[1, 2], [3]], "three": [[3], [1], [2]]}.items():
        toy = Toy([[packs]])
        (tmp_path / name).mkdir()
        (row,) = run(toy, tmp_path / name)
        rows.append((row["loss"], row["grad_norm"], row["tokens"], toy.policy.weight.item()))
    assert rows == [(6.0, 6.0, 3.0, 0.25)] * 3


def test_figures_of_several_optimizer_steps(tmp_path):
    """Minibatches (2) and (1), two passes: gradients 2, 1, 2, 1 at weights 1, 3/4, 5/8, 3/8, so
    losses 2, 3/4, 5/4, 3/8 with mean 35/32; the largest norm is 2; squares (4 + 1) * 2 over the 4
    tokens.
    """
    toy = Toy([[[[2]], [[1]]]], passes=2)
    (row,) = run(toy, tmp_path)
    assert row["loss"] == pytest.approx(35 / 32)
    assert row["grad_norm"] == 2.0
    assert row["tokens"] == 4.0
    assert row["tokens_squared"] == pytest.approx(10 / 4)
    assert toy.policy.weight.item() == 1 - 6 / 8


def test_the_schedule_counts_optimizer_steps(tmp_path):
    """Two steps of two optimizer steps, linear from 8: rates 8, 6, 4, 2; a row logs its last."""
    toy = Toy([[[[1]], [[1]]], [[[1]], [[1]]]])
    toy.config.optim = Optim(lr=0.008, schedule="linear", max_grad_norm=1e9)
    rows = run(toy, tmp_path)
    assert [row["lr"] for row in rows] == pytest.approx([0.006, 0.002])
    assert toy.policy.weight.item() == pytest.approx(1 - 0.020)


def test_a_long_gradient_is_scaled_down(tmp_path):
    """Gradient 6, limit 2: a step of 2/8; the norm logged is the one before."""
    toy = Toy([[[[1, 2, 3]]]])
    toy.config.optim = Optim(lr=0.125, max_grad_norm=2.0)
    (row,) = run(toy, tmp_path)
    assert row["grad_norm"] == 6.0
    assert toy.policy.weight.item() == pytest.approx(0.75, abs=1e-6)  # torch adds 1e-6 to the norm


def test_a_step_without_packs_leaves_the_weights_alone(tmp_path):
    """Adam's moments from step 1 would move them; the schedule goes on counting."""
    toy = Toy([[[[1]]], [[]], [[]], [[[1]]]])
    toy.config.optim = Optim(lr=0.1, schedule="linear", max_grad_norm=1e9)
    optimizer = adamw(toy.policy, toy.config.optim)
    weights = []
    collect = toy.collect
    toy.collect = lambda step: weights.append(toy.policy.weight.item()) or collect(step)
    with tiny.loop(toy, optimizer, tmp_path) as loop:
        assert loop.run(resume=False)
        assert loop.update.done == 4
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert weights[0] > weights[1] == weights[2] == weights[3] > toy.policy.weight.item()
    assert [row["tokens"] for row in rows] == [1.0, 0.0, 0.0, 1.0]
    assert [row["loss"] for row in rows[1:3]] == [0.0, 0.0]
    assert rows[3]["lr"] == pytest.approx(0.1 / 4)


BAD = {
    "nan loss": lambda weight, pack: weight * math.nan,
    "infinite loss": lambda weight, pack: weight * 0 + math.inf,
    # sqrt has value 0 and slope infinity at 0.
    "infinite gradient": lambda weight, pack: (weight - weight.detach()).sqrt(),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_number_that_is_none_stops_before_the_weights_change(bad, tmp_path):
    """The second of two packs is bad; the first one's gradient must not be stepped along."""

    def value(weight, pack):
        return BAD[bad](weight, pack) if pack.target[0] == 13 else weight * 1.0

    toy = Toy([[[[1]]], [[[1], [13]]]], value=value)
    optimizer = adamw(toy.policy, toy.config.optim)
    kept = []
    collect = toy.collect
    toy.collect = lambda step: kept.append(toy.policy.weight.detach().clone()) or collect(step)
    with (
        tiny.loop(toy, optimizer, tmp_path) as loop,
        pytest.raises(NonFiniteError, match=r"optimizer step 2.*the weights are as they were"),
    ):
        loop.run(resume=False)
    assert torch.equal(toy.policy.weight, kept[1])
    assert not torch.equal(kept[0], kept[1])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, True),
        ({"threads": 3, "patience": 60.0}, True),
        ({"gradient_checkpointing": True}, False),
        ({"token_budget": 100}, False),
    ],
)
def test_a_limit_of_packs_ends_with_what_it_was_found_under(changed, kept, tmp_path):
    """A resumed run with another use of memory tries whole packs again."""
    toy = Toy([[[[1]]], [[[2]]], [[[3]]]])
    toy.config.checkpoints = Checkpoints(every=2)
    optimizer = torch.optim.SGD(toy.policy.parameters(), lr=99.0)
    with tiny.loop(toy, optimizer, tmp_path) as loop:
        loop.update.backward.limit = 40
        assert loop.run(resume=False)
    toy.config.compute = Compute(**changed)
    with tiny.loop(toy, optimizer, tmp_path) as loop:
        assert loop.run(resume=True)
    assert loop.update.backward.limit == (40 if kept else None)


def test_the_smallest_limit_of_all_processes_is_kept(tmp_path, monkeypatch):
    toy = Toy([[[[1]]], [[[2]]]])
    with tiny.loop(toy, torch.optim.SGD(toy.policy.parameters(), lr=99.0), tmp_path) as loop:
        for others, smallest in (([None], None), ([70, None], 70), ([40, 50, None], 40)):
            monkeypatch.setattr("align.loop.gathered", lambda items, _, more=others: items + more)
            assert loop._limit() == smallest


def test_waiting_for_what_is_sampled_ahead_counts_as_sampling(tmp_path):
    """The state of a step's beginning has it, so there is the wait."""
    toy = Toy([[[[1]]]])
    toy.state = lambda: time.sleep(0.05) or {}
    collect = toy.collect
    toy.collect = lambda step: replace(collect(step), metrics={"seconds/sample": 1.0})
    (row,) = run(toy, tmp_path)
    assert 1.05 <= row["seconds/sample"] < 1.5
