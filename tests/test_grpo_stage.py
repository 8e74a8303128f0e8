"""What a GRPO step computes, samples again and carries along; the rollout is prepared (`tiny`)."""

import json
import math
from types import SimpleNamespace

import pytest
import tiny
import torch
import trl_peer
from datasets import Dataset

import rewards
from align import order
from align.config import Optim
from align.objectives.advantage import group_advantage
from align.stages.figures import rollout_figures
from align.stages.rolled import RewardError
from align.training.optim import adamw


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trl_peer.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def test_zero_advantage_is_not_computed(folder):
    """Group 0 all alike, group 1 with two completions at its mean (rewards 0, 1, 2, 1): only its
    first and third are laid out, under their one prompt.
    """
    made = tiny.rollout(2)
    made.rewards[:] = [1.0] * 4 + [0.0, 1.0, 2.0, 1.0]
    stage = tiny.grpo_stage(folder, made)
    batch = stage.collect(1)
    (one,) = batch.minibatches[0]
    lengths = made.lengths.tolist()
    assert sorted(one.lengths().tolist()) == sorted([lengths[4], lengths[6]])
    assert one.tokens == len(made.prompts[4]) + lengths[4] + lengths[6]
    assert batch.metrics["computed_tokens"] == one.tokens
    assert batch.metrics["dead_groups"] == 0.5
    # They still count in the mean over the rollout's tokens.
    assert float(one.columns["weight"][0]) == pytest.approx(1 / sum(lengths), rel=1e-6)


@pytest.mark.parametrize("option", [{"beta": 0.1}, {"entropy": 0.1}])
def test_zero_advantage_is_computed_where_it_matters(option, folder):
    made = tiny.rollout(2)
    made.rewards[:] = [1.0] * 8
    batch = tiny.grpo_stage(folder, made, **option).collect(1)
    assert sum(one.sequences for one in batch.minibatches[0]) == 8


def test_all_alike_leaves_no_pack(folder):
    made = tiny.rollout(2)
    made.rewards[:] = [1.0] * 8
    batch = tiny.grpo_stage(folder, made).collect(1)
    assert batch.minibatches == [[]]
    assert batch.metrics["computed_tokens"] == 0


def test_prompts_to_which_no_reward_applies_take_no_part(folder):
    """Group 1 has no reward at all: no advantage, no pack, and no figure is a mean with it."""
    made = tiny.rollout(2)
    made.rewards[:] = [0.0, 1.0, 1.0, 0.0] + [None] * 4
    for option in ({}, {"scale": "batch"}, {"advantage": "leave-one-out"},
                   {"advantage": "reinforce++"}):  # fmt: skip
        batch = tiny.grpo_stage(folder, made, **option).collect(1)
        assert sum(one.sequences for one in batch.minibatches[0]) == 4
        assert [row["advantage"] for row in batch.samples[4:]] == [0.0] * 4
        assert all(row["advantage"] for row in batch.samples[:4])
        assert batch.metrics["reward"] == batch.metrics["reward/recorded_reward"] == 0.5
        assert batch.metrics["reward_std"] == pytest.approx(math.sqrt(1 / 3))
        assert all(math.isfinite(value) for value in batch.metrics.values())


def test_a_step_to_which_no_reward_applies_trains_nothing(folder, tmp_path):
    made = tiny.rollout(2)
    made.rewards[:] = [None] * 8
    stage = tiny.grpo_stage(folder, made)
    before = {name: p.detach().clone() for name, p in stage.context.model.named_parameters()}
    with tiny.loop(stage, adamw(stage.context.module, Optim()), tmp_path) as loop:
        assert loop.run(resume=False)
    for name, parameter in stage.context.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert not [name for name in row if name.startswith("reward/")]
    assert "reward" not in row and "accuracy" not in row
    assert row["dead_groups"] == 1.0
    assert "NaN" not in (tmp_path / "samples.jsonl").read_text()


def test_the_most_common_text_is_counted_over_all_ranks():
    def group(*texts):
        return SimpleNamespace(
            texts=texts,
            samples=[SimpleNamespace(ids=[1], truncated=False)] * len(texts),
            scores=[rewards.Score(value=1.0)] * len(texts),
            dead=True,
        )

    alone = SimpleNamespace(gathered=lambda items: items)
    here = [group("a", "b"), group("a", "\ud800")]
    assert rollout_figures(here, alone)["most_common"] == 0.5
    there = []
    noted = SimpleNamespace(gathered=lambda items: there.append(items) or items)
    rollout_figures([group("b", "b", "b")], noted)
    both = SimpleNamespace(gathered=lambda items: items + there.pop(0))
    assert rollout_figures(here, both)["most_common"] == 4 / 7
    assert "most_common" not in rollout_figures([], alone)


def test_masked_truncated_completions_neither_train_nor_count(folder):
    """Completion 2 is cut; it moves the group's mean but has no pack and no place in the token
    count. Its sequence still counts (as in TRL).
    """
    made = tiny.rollout(1)
    made.rewards[:] = [0.0, 1.0, 0.5, 0.25]
    lengths = made.lengths.tolist()

    def weight(reduction):
        stage = tiny.grpo_stage(folder, made, mask_truncated=True, beta=0.1, reduction=reduction)
        batch = stage.collect(1)
        (one,) = batch.minibatches[0]
        assert sorted(one.lengths().tolist()) == sorted(lengths[:2] + lengths[3:])
        assert batch.metrics["truncated"] == 0.25
        assert [row["advantage"] == 0 for row in batch.samples] == [False, False, True, False]
        advantage = group_advantage(torch.tensor([made.rewards]))[0]
        assert float(one.columns["advantage"].max()) == pytest.approx(float(advantage.max()))
        return one, float(one.columns["weight"][0])

    assert weight("dapo")[1] == pytest.approx(1 / (sum(lengths) - lengths[2]), rel=1e-6)
    one, first = weight("grpo")
    assert first == pytest.approx(1 / (4 * int(one.lengths()[0])), rel=1e-6)


class Judge(rewards.Reward):
    """Correctness from the column `right`; the value differs within every group."""

    name = "judge"

    def score(self, completions, *, right, **_):
        return [
            rewards.Score(value=float(i % 4), correct=values[i % 4])
            for i, values in enumerate(right)
        ]


def refilling(folder, *, right, refill, prompts=2, count=6):
    """A stage over `count` prompts, whose correctness in visiting order is `right`."""
    made = tiny.rollout(count)
    stage = tiny.grpo_stage(folder, made, reward=Judge(), prompts=prompts, refill=refill)
    visited = [order.at(place, count, stage.config.seed) for place in range(count)]
    column = dict(zip(visited, right, strict=True))
    table = [row | {"right": column[i]} for i, row in enumerate(stage.prompts.rows)]
    stage.prompts.rows = Dataset.from_list(table)
    stage.prompts.columns = ["right"]
    return stage, visited


ALIVE, WRONG, RIGHT = [0.0, 1.0, 1.0, 0.0], [0.0] * 4, [1.0] * 4


def test_dead_groups_are_refilled_on_raw_correctness(folder):
    """Prompts 2 a step: (wrong, alive), one more: right, one more: alive. Their shaped rewards
    differ in every group, so only correctness can tell. Kept: places 1 and 3; the cursor is at 4.
    """
    stage, visited = refilling(folder, right=[WRONG, ALIVE, RIGHT, ALIVE, ALIVE, ALIVE], refill=3)
    batch = stage.collect(1)
    sampled = list(dict.fromkeys(row["prompt_index"] for row in batch.samples))
    # What trains comes first; what was replaced is logged and counted, with no advantage.
    assert sampled == [visited[1], visited[3], visited[0], visited[2]]
    assert all(row["advantage"] == 0 for row in batch.samples[8:])
    assert any(row["advantage"] != 0 for row in batch.samples[:8])
    assert batch.metrics["dead_groups"] == 0.5
    assert [len(asked) for asked in stage.engine.asked] == [2, 1, 1]
    assert stage.state() == {"cursor": 4}


def test_refill_stops_at_its_cap(folder):
    """One round: (wrong, alive), then right, which is kept because the cap is reached."""
    stage, visited = refilling(folder, right=[WRONG, ALIVE, RIGHT, ALIVE, ALIVE, ALIVE], refill=1)
    batch = stage.collect(1)
    sampled = list(dict.fromkeys(row["prompt_index"] for row in batch.samples))
    assert sampled == [visited[1], visited[2], visited[0]]
    assert [len(asked) for asked in stage.engine.asked] == [2, 1]
    assert batch.metrics["dead_groups"] == pytest.approx(2 / 3)
    assert stage.state() == {"cursor": 3}


def test_without_refill_dead_groups_stay(folder):
    stage, _ = refilling(folder, right=[WRONG, RIGHT] + [ALIVE] * 4, refill=0)
    batch = stage.collect(1)
    assert [len(asked) for asked in stage.engine.asked] == [2]
    assert batch.metrics["dead_groups"] == 1.0


def test_next_step_goes_on_where_the_refill_ended(folder):
    stage, visited = refilling(folder, right=[WRONG, ALIVE] + [ALIVE] * 4, refill=3)
    stage.collect(1)
    asked = stage.engine.asked.copy()
    rows = [row["prompt_index"] for row in stage.collect(2).samples[::4]]
    assert [len(one) for one in asked] == [2, 1]
    assert rows == visited[3:5]


def test_two_iterations_of_two_minibatches_are_four_steps(folder, tmp_path):
    """`old` is the policy's log-prob before the first of the four steps, on every pass; with a
    learning rate the ratio leaves 1 from the second step on.
    """
    made = tiny.rollout(4)
    stage = tiny.grpo_stage(
        folder, made, iterations=2, minibatches=2, optim=Optim(lr=1e-2, max_grad_norm=1e9)
    )
    assert stage.optimizer_steps == 4
    with torch.no_grad():
        before = trl_peer.flat_logprobs(stage.context.model, made)
    packs = []
    original = stage.loss
    stage.loss = lambda pack: packs.append(pack) or original(pack)
    policy = stage.context.module
    steps = []

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            steps.append(self.param_groups[0]["lr"])
            return super().step(closure)

    with tiny.loop(stage, Counting(policy.parameters(), lr=0.0), tmp_path) as loop:
        assert loop.run(resume=False)
    assert steps == [1e-2] * 4
    assert loop.update.done == 4
    assert len(packs) == 4
    for first, second in ((0, 2), (1, 3)):
        assert torch.equal(packs[first].columns["old"], packs[second].columns["old"])
    old = torch.cat([packs[0].columns["old"], packs[1].columns["old"]])
    torch.testing.assert_close(old.sort().values, before.sort().values)
    with torch.no_grad():
        assert (policy(packs[0])[0] - packs[0].columns["old"]).abs().max() > 1e-3


def test_one_optimizer_step_needs_no_old_column(folder):
    """The old policy is the current one: the ratio is 1, so the gradient is REINFORCE's."""
    made = tiny.rollout()
    stage = tiny.grpo_stage(folder, made, reduction="dapo")
    batch = stage.collect(1)
    assert batch.columns == ("weight", "advantage", "sampler")
    got = tiny.backward(stage, batch)
    model = stage.context.model
    advantage = group_advantage(torch.tensor(made.rewards).view(3, 4)).flatten()[made.sequence]
    model.zero_grad()
    (-trl_peer.flat_logprobs(model, made) * advantage).mean().backward()
    assert trl_peer.relative_distance(got.gradient, trl_peer.gradient(model)) < 1e-5
    assert got.metrics["clip_fraction"] == 0


def test_kl_is_measured_every_so_many_steps_without_a_term(folder):
    """kl_every=2 at beta 0: steps 1 and 3 carry the reference, step 2 does not; the gradient is
    that without it.
    """
    made = tiny.rollout()
    without = tiny.grpo_stage(folder, made)
    trl_peer.move(without.context.model, seed=1, by=0.05)
    plain = tiny.backward(without, without.collect(1))
    stage = tiny.grpo_stage(folder, made, kl_every=2)
    trl_peer.move(stage.context.model, seed=1, by=0.05)
    got = tiny.backward(stage, stage.collect(1))
    assert got.metrics["kl"] > 0
    assert trl_peer.relative_distance(got.gradient, plain.gradient) < 1e-7
    assert "reference" not in stage.collect(2).columns
    assert "reference" in stage.collect(3).columns


def test_mismatch_is_measured_against_the_sampler(folder):
    """sampler = trainer - 0.1 on every token: |difference| 0.1, k3 = e^0.1 - 1 - 0.1."""
    made = tiny.rollout()
    old = trl_peer.flat_logprobs(tiny.grpo_stage(folder, made).context.model, made).detach()
    claimed = [part.tolist() for part in (old - 0.1).split(made.lengths.tolist())]
    made = trl_peer.Rollout(**(vars(made) | {"sampler": claimed}))
    stage = tiny.grpo_stage(folder, made, importance="token", importance_cap=1.05)
    got = tiny.backward(stage, stage.collect(1))
    tokens = got.metrics["tokens"]
    assert got.metrics["mismatch/logprob"] / tokens == pytest.approx(0.1, rel=1e-4)
    assert got.metrics["mismatch/kl"] / tokens == pytest.approx(math.exp(0.1) - 1.1, rel=1e-3)
    assert got.metrics["mismatch/capped"] == tokens  # e^0.1 = 1.105 is over 1.05 everywhere
    # Every token's loss is multiplied by the cap.
    off = tiny.grpo_stage(folder, made)
    expected = tiny.backward(off, off.collect(1))
    scaled = {name: 1.05 * g for name, g in expected.gradient.items()}
    assert trl_peer.relative_distance(got.gradient, scaled) < 1e-5


class Broken(rewards.Reward):
    """Gives these values, however many were asked for."""

    name = "broken"

    def __init__(self, values):
        self.values = values

    def score(self, completions, **_):
        return [rewards.Score(value=value) for value in self.values]


@pytest.mark.parametrize(
    ("values", "problem"),
    [([1.0, math.nan, 0.0, 0.0], "gave nan"), ([1.0, 0.0], "gave 2 scores for 4 completions")],
)
def test_a_reward_that_breaks_the_protocol_stops_the_step(values, problem, folder):
    stage = tiny.grpo_stage(folder, tiny.rollout(1), reward=Broken(values))
    with pytest.raises(RewardError, match=f"step 1: the reward {problem}"):
        stage.collect(1)
