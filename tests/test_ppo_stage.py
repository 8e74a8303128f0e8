"""What a PPO step computes, against float64 loops over tokens (`ppo_stage.Expected`), and how it
behaves from step to step; the rollout is prepared.
"""

import math
from itertools import pairwise
from unittest.mock import patch

import ppo_stage
import pytest
import runs
import tiny
import torch
import trl_peer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from align.config import Lora, Optim
from align.modeling.actor_critic import CRITIC
from align.models import ModelError
from align.stages.rolled import RewardError
from align.training.optim import adamw

CASES = {
    "clip": {},
    "asymmetric bounds": {"eps_low": 0.05, "eps_high": 0.3},
    "plain value loss": {"value_clip": 0.0},
    "value weight, reference off": {"value_weight": 2.0, "beta": 0.0},
    "entropy bonus": {"entropy": 0.05},
    "k3 in the loss": {"kl": "loss", "beta": 0.3},
    "penalty": {"objective": "penalty", "penalty": 3.0},
    "token correction": {"importance": "token", "importance_cap": 1.2},
    "sequence correction": {"importance": "sequence", "importance_cap": 1.2, "entropy": 0.05},
    "penalty and correction": {
        "objective": "penalty", "penalty": 3.0, "importance": "token", "kl": "loss", "beta": 0.1,
    },
    "truncated": {"truncated_penalty": 2.5},
    "not whitened": {"whiten": False},
    "mean per sequence": {"reduction": "grpo"},
    "constant length": {"reduction": "dr_grpo"},
    "token mean": {"reduction": "bnpo"},
    "shared": {"critic": "shared", "entropy": 0.01},
    "adapters": {"critic": "adapters", "lora": Lora(rank=2, alpha=32.0), "entropy": 0.01},
    "temperature": {"temperature": 0.7},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trl_peer.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def rollout_step(folder, made, **options):
    """(stage, its batch, what it must be, the models after the rollout's first update)."""
    stage = ppo_stage.ppo_stage(folder, made, **options)
    ppo_stage.move(stage, seed=1)
    expected = ppo_stage.Expected(
        config=stage.config,
        rollout=made,
        old=ppo_stage.look(stage, made),
        reference=ppo_stage.look(stage, made, reference=True),
        beta=stage.config.beta,
    )
    batch = stage.collect(1)
    ppo_stage.move(stage, seed=2)
    return stage, batch, expected


@pytest.mark.parametrize("case", CASES)
def test_every_part_equals_loops_over_tokens(case, folder):
    made = tiny.rollout()
    stage, batch, expected = rollout_step(folder, made, **({"beta": 0.2} | CASES[case]))
    for name, theirs in (
        ("old", expected.old.logprobs),
        ("value", expected.old.values),
        ("reference", expected.reference.logprobs),
        ("return", expected.returns),
        ("advantage", expected.advantages),
    ):
        ours = ppo_stage.by_completion(stage, batch, made, name)
        assert ppo_stage.close(ours, theirs) < 1e-5, name
    figures = expected.figures()
    assert {name: batch.metrics[name] for name in figures} == pytest.approx(figures, rel=1e-5)
    loss, sums = expected.step(ppo_stage.look(stage, made))
    got = ppo_stage.backward(stage, batch)
    assert got.loss == pytest.approx(loss, rel=1e-5)
    assert got.metrics == pytest.approx(sums, rel=1e-5)
    for name in ("clip_fraction", "value_clip_fraction"):  # some are and some are not
        if stage.config.value_clip and name in sums:
            assert 0 < sums[name] < sums["tokens"]


@pytest.mark.parametrize(
    ("gamma", "lam"), [(1.0, 0.95), (1.0, 1.0), (0.9, 0.0), (0.9, 0.5), (0.0, 0.95)]
)
def test_advantages_and_returns_at_any_discount(gamma, lam, folder):
    made = tiny.rollout()
    options = {"gamma": gamma, "lam": lam, "whiten": False, "beta": 0.2}
    stage, batch, expected = rollout_step(folder, made, **options)
    for name, theirs in (("advantage", expected.plain), ("return", expected.returns)):
        ours = ppo_stage.by_completion(stage, batch, made, name)
        assert ppo_stage.close(ours, theirs) < 1e-5


@pytest.mark.parametrize("kl", ["reward", "loss"])
def test_the_rewards_of_the_tokens(kl, folder):
    """At lambda 1 a return is the reward and the next return: G_t - gamma G_(t+1) is r_t.
    Completion 2 is the one that was cut.
    """
    made = tiny.rollout()
    options = {"lam": 1.0, "gamma": 0.9, "beta": 0.2, "truncated_penalty": 2.5, "kl": kl}
    stage, batch, expected = rollout_step(folder, made, **options)
    rewards = [
        [now - 0.9 * then for now, then in zip(row, [*row[1:], 0.0], strict=True)]
        for row in ppo_stage.by_completion(stage, batch, made, "return")
    ]
    assert ppo_stage.close(rewards, expected.rewards) < 1e-5
    ends = [row[-1] - score for row, score in zip(expected.rewards, made.rewards, strict=True)]
    if kl == "loss":
        assert ends == [0.0, 0.0, pytest.approx(-2.5)] + [0.0] * 9
        assert all(reward == 0 for row in expected.rewards for reward in row[:-1])
    assert batch.metrics["truncated"] == pytest.approx(1 / 12)


def test_whitening_looks_at_the_tokens_of_all_minibatches(folder):
    made = tiny.rollout(5)
    _, batch = ppo_stage.collected(folder, made, minibatches=2, token_budget=60)
    assert min(len(packs) for packs in batch.minibatches) > 1
    tokens = torch.cat([p.columns["advantage"] for packs in batch.minibatches for p in packs])
    assert float(tokens.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(tokens.std()) == pytest.approx(1.0, rel=1e-6)


def test_samples_carry_their_own_mean_advantage(folder):
    """Packs are filled by size and cut into minibatches; the log is in the order of sampling."""
    made = tiny.rollout(5)
    options = {"minibatches": 2, "token_budget": 60, "beta": 0.2}
    stage, batch, expected = rollout_step(folder, made, **options)
    numbers = [
        int(n) for packs in batch.minibatches for p in packs for n in p.per_sequence("number")
    ]
    assert sorted(numbers) == list(range(20)) and numbers != sorted(numbers)
    texts = [" ".join(f"w{token}" for token in prompt) for prompt in made.prompts]
    for row, i in zip(batch.samples, ppo_stage.visited(stage, made), strict=True):
        assert (row["prompt"], row["sample"]) == (texts[i], i % 4)
        assert row["reward"] == made.rewards[i]
        mean = sum(expected.advantages[i]) / len(expected.advantages[i])
        assert row["advantage"] == pytest.approx(mean, rel=1e-4, abs=1e-5)


# From step to step.


def run(stage, folder, optimizer=None):
    """The real loop over all steps; (its metrics rows, its samples rows)."""
    config, module = stage.config, stage.context.unwrapped
    apart = list(module.critic_parameters())
    optimizer = optimizer or adamw(module, config.optim, critic=apart, critic_lr=config.critic_lr)
    stage.prepare()
    with tiny.loop(stage, optimizer, folder) as loop:
        assert loop.run(resume=False)
    return runs.logs(folder)


@pytest.mark.parametrize(("times", "factor"), [(4.0, 0.5), (1.0, 1.0), (0.25, 2.0)])
def test_beta_follows_the_rule(times, factor, folder, tmp_path):
    """The next rollout's rewards pay the new beta; the row of a step says what that step paid."""
    made = tiny.rollout()
    probe = ppo_stage.ppo_stage(folder, made)
    ppo_stage.move(probe, seed=1)
    target = times * probe.collect(1).metrics["kl/sequence"]
    still = Optim(lr=0.0)
    options = {"beta": 0.2, "kl_target": target, "steps": 2, "optim": still, "critic_lr": 0.0}
    stage = ppo_stage.ppo_stage(folder, made, **options)
    ppo_stage.move(stage, seed=1)
    rows, _ = run(stage, tmp_path)
    assert [row["beta"] for row in rows] == pytest.approx([0.2, 0.2 * factor])
    assert stage.state()["beta"] == pytest.approx(0.2 * factor**2)
    fresh = ppo_stage.ppo_stage(folder, made, **options)
    fresh.load_state(stage.state())
    assert (fresh.beta, fresh.cursor) == (stage.beta, stage.cursor)
    expected = [
        ppo_stage.Expected(
            config=stage.config,
            rollout=made,
            old=ppo_stage.look(stage, made),
            reference=ppo_stage.look(stage, made, reference=True),
            beta=beta,
        ).figures()["return"]
        for beta in (0.2, 0.2 * factor)
    ]
    assert [row["return"] for row in rows] == pytest.approx(expected, rel=1e-4)


def test_the_loss_pays_the_beta_that_its_row_names(folder):
    """kl="loss": a step's beta is the one before the rule, in the loss as in the log."""
    made = tiny.rollout()
    options = {"kl": "loss", "beta": 0.2, "value_weight": 0.0}
    fixed = ppo_stage.backward(*ppo_stage.collected(folder, made, **options))
    stage, batch = ppo_stage.collected(folder, made, **options, kl_target=1e6)
    assert batch.metrics["beta"] == 0.2
    assert ppo_stage.backward(stage, batch).loss == fixed.loss
    stage.learned(batch.metrics | {"kl/old": 0.0})
    assert stage.state()["beta"] == 0.1


def test_no_target_leaves_beta(folder, tmp_path):
    stage = ppo_stage.ppo_stage(folder, tiny.rollout(), beta=0.2, steps=2, optim=Optim(lr=1e-2))
    rows, _ = run(stage, tmp_path)
    assert [row["beta"] for row in rows] == [0.2, 0.2]
    assert "penalty" not in rows[0]


@pytest.mark.parametrize(("times", "factor"), [(4.0, 0.5), (1.0, 1.0), (0.25, 2.0), (0.0, 1.0)])
def test_the_penalty_follows_the_rule(times, factor, folder, tmp_path):
    """Its KL is the mean of what the rollout's updates moved, as the row says."""
    made = tiny.rollout()
    options = {"objective": "penalty", "iterations": 3, "optim": Optim(lr=1e-3), "penalty": 1.0}
    probe = ppo_stage.ppo_stage(folder, made, **options)
    (row,), _ = run(probe, tmp_path)
    assert row["kl/old"] > 0
    (tmp_path / "again").mkdir()
    stage = ppo_stage.ppo_stage(folder, made, **options, penalty_target=times * row["kl/old"])
    rows, _ = run(stage, tmp_path / "again")
    assert rows[0]["penalty"] == 1.0
    assert stage.state()["penalty"] == factor


def parts(stage):
    """Copies of (what the critic has for itself, all the rest)."""
    module = stage.context.unwrapped
    apart = {id(p) for p in module.critic_parameters()}
    named = list(module.named_parameters())
    return (
        {name: p.detach().clone() for name, p in named if id(p) in apart},
        {name: p.detach().clone() for name, p in named if id(p) not in apart},
    )


def unmoved(before, after):
    return [name for name in before if torch.equal(before[name], after[name])]


KINDS = {
    "separate": {"critic": "separate"},
    "shared": {"critic": "shared"},
    "adapters": {"critic": "adapters", "lora": Lora(rank=4)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_moves_the_critic_and_no_weight_of_the_policy(kind, folder, tmp_path):
    """Neither by a gradient through a shared trunk, nor by weight decay, nor is beta halved for a
    KL that cannot grow; with the warm-up over the policy moves.
    """
    options = {"critic_warmup": 2, "steps": 3, "beta": 0.2, "kl_target": 1e6, "iterations": 2}
    optim = Optim(lr=1e-2, weight_decay=0.1)
    stage = ppo_stage.ppo_stage(
        folder, tiny.rollout(), **options, **KINDS[kind], optim=optim, critic_lr=1e-2
    )
    seen = [parts(stage)]
    original = stage.learned

    def learned(metrics):
        original(metrics)
        seen.append(parts(stage))

    with patch.object(stage, "learned", learned):
        rows, _ = run(stage, tmp_path)
    assert [row["warmup"] for row in rows] == [1.0, 1.0, 0.0]
    for (critic, policy), (critic_after, policy_after) in pairwise(seen[:3]):
        assert unmoved(policy, policy_after) == list(policy)
        assert set(critic) - set(unmoved(critic, critic_after))
    assert rows[1]["value_loss"] < rows[0]["value_loss"]
    trained = {n for n, p in stage.context.unwrapped.named_parameters() if p.requires_grad}
    assert trained.isdisjoint(set(unmoved(seen[2][1], seen[3][1])))
    assert [row["beta"] for row in rows] == [0.2] * 3
    assert stage.beta == 0.1


def test_epochs_and_minibatches_count_optimizer_steps(folder, tmp_path):
    """5 prompts in 2 minibatches, gone through 3 times, 2 rollouts: 12 steps; `old` stays what it
    was before the first of a rollout's six.
    """
    made = tiny.rollout(5)
    options = {"minibatches": 2, "iterations": 3, "steps": 2, "optim": Optim(lr=1e-2)}
    stage = ppo_stage.ppo_stage(folder, made, **options, critic_lr=1e-2)
    assert stage.optimizer_steps == 6
    packs, original = [], stage.loss
    stage.loss = lambda pack: packs.append((pack, pack.columns["old"].clone())) or original(pack)
    taken = []

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            taken.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    optimizer = Counting(stage.context.unwrapped.parameters(), lr=0.0)
    run(stage, tmp_path, optimizer)
    assert taken == [[1e-2]] * 12
    assert len(packs) == 12
    assert [one.sequences for one, _ in packs[:6]] == [8, 12] * 3
    for i in range(4):
        assert torch.equal(packs[i][0].target, packs[i + 2][0].target)
        assert torch.equal(packs[i][1], packs[i + 2][1])
    assert not torch.equal(packs[6][1], packs[0][1])


def test_more_minibatches_than_prompts_take_the_steps_there_are(folder, tmp_path):
    stage = ppo_stage.ppo_stage(folder, tiny.rollout(2), minibatches=4, optim=Optim(lr=1e-3))
    (row,), samples = run(stage, tmp_path)
    assert row["tokens"] == 2 * sum(sample["length"] for sample in samples)  # two iterations


@pytest.mark.parametrize("kind", KINDS)
def test_critic_lr_is_the_critics_alone(kind, folder, tmp_path):
    options = {"critic_lr": 0.0, "optim": Optim(lr=1e-2)} | KINDS[kind]
    stage = ppo_stage.ppo_stage(folder, tiny.rollout(), **options)
    ppo_stage.move(stage, seed=1)
    critic, policy = parts(stage)
    run(stage, tmp_path)
    critic_after, policy_after = parts(stage)
    assert unmoved(critic, critic_after) == list(critic)
    assert len(unmoved(policy, policy_after)) < len(policy)


def test_learning_rates_of_both(folder, tmp_path):
    """Adam's first step is the learning rate for every weight with a gradient of any size."""
    optim = Optim(lr=1e-3, eps=1e-30)
    options = {"critic_lr": 4e-3, "optim": optim, "iterations": 1}
    stage = ppo_stage.ppo_stage(folder, tiny.rollout(), **options)
    ppo_stage.move(stage, seed=1)
    before = parts(stage)
    run(stage, tmp_path)
    for rate, old, new in zip((4e-3, 1e-3), before, parts(stage), strict=True):
        steps = torch.cat([(new[name] - old[name]).abs().flatten() for name in old])
        moved = steps[steps > 0]
        assert len(moved) > len(steps) / 2
        assert float(moved.median()) == pytest.approx(rate, rel=1e-3)


class Recording(torch.optim.SGD):
    """Keeps the norm of the gradient of each group that it is asked to step along."""

    def step(self, closure=None):
        self.seen = {
            group["norm"]: math.sqrt(sum(float(p.grad.square().sum()) for p in group["params"]))
            for group in self.param_groups
        }


def test_the_critics_gradient_is_clipped_apart(folder, tmp_path):
    """Its norm is tens of times the policy's; both are logged as they were, and each is held to the
    limit for itself.
    """
    made = tiny.rollout()
    options = {"optim": Optim(max_grad_norm=0.02), "iterations": 1, "value_weight": 50.0}
    stage = ppo_stage.ppo_stage(folder, made, **options)
    ppo_stage.move(stage, seed=1)
    module = stage.context.unwrapped
    apart = {id(p) for p in module.critic_parameters()}
    groups = [
        {"params": [p for p in module.parameters() if (id(p) in apart) == mine], "norm": norm}
        for mine, norm in ((False, "grad_norm"), (True, "grad_norm/critic"))
    ]
    optimizer = Recording(groups, lr=0.0)
    (row,), _ = run(stage, tmp_path, optimizer)
    gradient = ppo_stage.backward(stage, stage.collect(1)).gradient
    for name, inside in (("grad_norm", "policy."), ("grad_norm/critic", "scorer.")):
        mine = [g for key, g in gradient.items() if key.startswith(inside)]
        length = math.sqrt(sum(float(g.square().sum()) for g in mine))
        assert row[name] == pytest.approx(length, rel=1e-4)
        assert length > 0.02
        assert optimizer.seen[name] == pytest.approx(0.02, rel=1e-3)
    assert row["grad_norm/critic"] > 10 * row["grad_norm"]


def test_the_parts_that_adamw_is_given(folder):
    """Every trained parameter in one group, the critic's in its own."""
    for kind, options in KINDS.items():
        stage = ppo_stage.ppo_stage(folder, tiny.rollout(), **options)
        module = stage.context.unwrapped
        critic = list(module.critic_parameters())
        groups = adamw(module, Optim(lr=1e-3), critic=critic, critic_lr=3e-3).param_groups
        of = {id(p): group for group in groups for p in group["params"]}
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        assert len(of) == len(trained)
        for name, parameter in trained.items():
            mine = name.startswith(("scorer.", "head.")) or f".{CRITIC}." in name
            expected = (3e-3, "grad_norm/critic") if mine else (1e-3, "grad_norm")
            group = of[id(parameter)]
            assert (group["base_lr"], group["norm"]) == expected, (kind, name)


# What must not pass in silence.


def test_a_reward_that_does_not_apply_is_refused(folder):
    made = tiny.rollout()
    made.rewards[5] = None
    with pytest.raises(RewardError, match="PPO needs a number for every one"):
        ppo_stage.ppo_stage(folder, made).collect(1)


def critic_folder(folder, target, *, labels=1, tokenizer=None):
    """A classifier like the policy in `folder`."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=labels, dtype=torch.float32
    )
    model.save_pretrained(target)
    (tokenizer or AutoTokenizer.from_pretrained(folder)).save_pretrained(target)
    return str(target)


def test_the_critic_starts_as_the_model_it_is_given(folder, tmp_path):
    path = critic_folder(folder, tmp_path / "critic")
    given = AutoModelForSequenceClassification.from_pretrained(path).state_dict()
    critic = ppo_stage.ppo_stage(folder, tiny.rollout(), critic_model=path).context.unwrapped.scorer
    assert critic.model.score.weight.abs().sum() > 0
    assert all(torch.equal(critic.model.state_dict()[name], given[name]) for name in given)
    fresh = ppo_stage.ppo_stage(folder, tiny.rollout()).context.unwrapped.scorer
    assert not fresh.model.score.weight.any()


def test_a_critic_of_two_labels_is_refused(folder, tmp_path):
    path = critic_folder(folder, tmp_path / "critic", labels=2)
    with pytest.raises(ModelError, match="2 labels; a reward model has one"):
        ppo_stage.ppo_stage(folder, tiny.rollout(), critic_model=path)


def test_a_critic_that_is_no_classifier_is_refused(folder):
    with pytest.raises(ModelError, match="is no reward model but a LlamaForCausalLM"):
        ppo_stage.ppo_stage(folder, tiny.rollout(), critic_model=str(folder))


def test_a_critic_with_another_tokenizer_is_refused(folder, tmp_path):
    path = critic_folder(folder, tmp_path / "critic", tokenizer=tiny.chat_tokenizer())
    with pytest.raises(ModelError, match="the same token ids mean other words there"):
        ppo_stage.ppo_stage(folder, tiny.rollout(), critic_model=path)


def test_a_pack_of_two_backbones_is_half_as_long(folder):
    made = tiny.rollout()
    for options, budget in ((KINDS["separate"], 50), (KINDS["shared"], 100)):
        _, batch = ppo_stage.collected(folder, made, token_budget=100, **options)
        assert max(one.tokens for one in batch.minibatches[0]) <= budget
