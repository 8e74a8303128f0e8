"""One GRPO batch has one gradient, however it is laid out and cut into micro-batches.

The real stage collects a prepared rollout (see `tiny`) and its loss is differentiated pack by pack.
The oracle is the padded layout with everything in one batch; `test_grpo_trl` holds that one to TRL,
and the first test here to plain sequences computed one by one.
"""

import math

import pytest
import tiny
import torch
import trl_peer

from align.config import Lora, Optim
from align.modeling.lora import add_lora
from align.objectives.advantage import group_advantage

BUDGETS = (1, 20, 40, 70, 10_000)  # one completion a pack, some, ..., everything in one

CASES = {
    "grpo": {"reduction": "grpo"},
    "bnpo": {"reduction": "bnpo"},
    "dapo": {"reduction": "dapo"},
    "dr_grpo": {"reduction": "dr_grpo", "scale": "none"},
    "gspo": {"objective": "gspo", "reduction": "grpo", "eps_low": 0.02, "eps_high": 0.02},
    "cispo": {"objective": "cispo", "ratio_max": 1.1},
    "beta": {"beta": 0.1},
    "grpo, beta": {"reduction": "grpo", "beta": 0.1},
    "entropy": {"entropy": 0.05},
    "leave-one-out": {"advantage": "leave-one-out"},
    "reinforce++": {"advantage": "reinforce++"},
    "token correction": {"importance": "token", "importance_cap": 1.2},
    "sequence correction": {"importance": "sequence", "importance_cap": 1.2},
    "truncated masked": {"mask_truncated": True, "beta": 0.1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trl_peer.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def collected(folder, made, **options):
    """A stage and its batch: policy moved off the reference before the rollout and on after it."""
    stage = tiny.grpo_stage(folder, made, **({"iterations": 2} | options))
    trl_peer.move(stage.context.model, seed=1, by=0.05)
    batch = stage.collect(1)
    trl_peer.move(stage.context.model, seed=2, by=0.05)
    return stage, batch


def same(got, expected):
    assert got.loss == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
    assert trl_peer.relative_distance(got.gradient, expected.gradient) < 1e-5
    assert got.metrics == pytest.approx(expected.metrics, rel=1e-4, abs=1e-5)


def test_padded_layout_equals_sequences_one_by_one(folder):
    """DAPO's sum of A (logp - beta k3 terms) written with plain models: with the ratio inside the
    bounds of 0 and infinity the loss is -r A + 0.1 k3, over the rollout's tokens.
    """
    made = tiny.rollout()
    stage, batch = collected(
        folder, made, padded=True, reduction="dapo", beta=0.1, eps_low=1.0, eps_high=1e9
    )
    got = tiny.backward(stage, batch)

    def scored(model):
        return trl_peer.flat_logprobs(model, made)

    model = stage.context.model
    now = scored(model)
    with torch.no_grad():
        reference = scored(stage.reference.model)
        old_model = tiny.grpo_stage(folder, made).context.model
        trl_peer.move(old_model, seed=1, by=0.05)
        old = scored(old_model)
    advantage = group_advantage(torch.tensor(made.rewards).view(3, 4)).flatten()[made.sequence]
    log_r = reference - now
    k3 = log_r.exp() - 1 - log_r
    loss = (-(now - old).exp() * advantage + 0.1 * k3).mean()
    model.zero_grad()
    loss.backward()
    assert got.loss == pytest.approx(loss.item(), rel=1e-5)
    assert trl_peer.relative_distance(got.gradient, trl_peer.gradient(model)) < 1e-5
    assert got.metrics["kl"] == pytest.approx(k3.sum().item(), rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_any_budget_gives_the_padded_gradient(case, folder):
    made = tiny.rollout()
    expected = tiny.backward(*collected(folder, made, padded=True, **CASES[case]))
    assert torch.cat([g.flatten() for g in expected.gradient.values()]).norm() > 1e-3
    packs = set()
    for budget in BUDGETS:
        stage, batch = collected(folder, made, token_budget=budget, **CASES[case])
        packs.add(len(batch.minibatches[0]))
        same(tiny.backward(stage, batch), expected)
    assert len(packs) >= 4  # the budgets did cut differently


@pytest.mark.parametrize("prompts", [1, 2, 5])
def test_any_number_of_groups(prompts, folder):
    made = tiny.rollout(prompts)
    options = {"beta": 0.1, "reduction": "grpo"}
    expected = tiny.backward(*collected(folder, made, padded=True, **options))
    for budget in BUDGETS:
        same(tiny.backward(*collected(folder, made, token_budget=budget, **options)), expected)


@pytest.mark.parametrize("reduction", ["grpo", "bnpo", "dapo", "dr_grpo"])
def test_each_minibatch_has_one_gradient(reduction, folder):
    """Five groups in two minibatches, of 2 and 3 groups; both layouts cut them alike."""
    options = {"reduction": reduction, "minibatches": 2, "beta": 0.1}
    made = tiny.rollout(5)
    stage, batch = collected(folder, made, padded=True, **options)
    sizes = [sum(one.sequences for one in packs) for packs in batch.minibatches]
    assert sizes == [8, 12]
    for index in range(2):
        expected = tiny.backward(stage, batch, index)
        for budget in BUDGETS:
            ours = collected(folder, made, token_budget=budget, **options)
            same(tiny.backward(*ours, index), expected)


def total_weight(batch, index):
    return sum(float(one.columns["weight"].sum()) for one in batch.minibatches[index])


def test_weights_of_the_minibatches_add_up(folder):
    """With every completion computed the weights of a mean sum to 1: in each minibatch (grpo,
    bnpo), on average over them (dapo). dr_grpo: tokens / (12 * sequences of the minibatch).
    """
    made = tiny.rollout(5)

    def weights(reduction):
        options = {"reduction": reduction, "minibatches": 2, "beta": 0.1}
        _, batch = collected(folder, made, **options)
        tokens = [sum(len(p.target) for p in packs) for packs in batch.minibatches]
        return [total_weight(batch, i) for i in range(2)], tokens

    for reduction in ("grpo", "bnpo"):
        assert weights(reduction)[0] == pytest.approx([1.0, 1.0], rel=1e-6)
    shares, tokens = weights("dapo")
    assert sum(tokens) == int(made.lengths.sum())
    assert shares == pytest.approx([2 * n / sum(tokens) for n in tokens], rel=1e-6)
    shares, tokens = weights("dr_grpo")
    assert shares == pytest.approx([tokens[0] / (12 * 8), tokens[1] / (12 * 12)], rel=1e-6)


def test_entropy_bonus_enters_with_its_sign(folder):
    """One optimizer step a rollout at rewards all alike: no policy term is left, and descending the
    loss must raise the entropy.
    """
    made = tiny.rollout()
    made.rewards[:] = [1.0] * len(made.rewards)
    stage, batch = collected(folder, made, entropy=1.0, iterations=1)
    before = tiny.backward(stage, batch)
    mean = before.metrics["entropy"] / before.metrics["tokens"]
    assert before.loss == pytest.approx(-mean, rel=1e-5)
    with torch.no_grad():
        for name, weight in stage.context.model.named_parameters():
            weight -= 1e-3 * before.gradient[name]
    assert tiny.backward(stage, batch).metrics["entropy"] > before.metrics["entropy"]


def test_temperature_is_the_samplers(folder):
    """The stage's log-probs are those of the softmax at the sampling temperature."""
    made = tiny.rollout()
    stage = tiny.grpo_stage(folder, made, temperature=0.7, iterations=2)
    (one,) = stage.collect(1).minibatches[0]
    with torch.no_grad():
        expected = trl_peer.flat_logprobs(stage.context.model, made, temperature=0.7)
    torch.testing.assert_close(one.columns["old"].sort().values, expected.sort().values)


def test_lora_reference_is_the_model_without_adapters(folder):
    """beta > 0 with adapters loads no second model; its reference log-probs are the input's."""
    made = tiny.rollout()
    lora = tiny.grpo_stage(folder, made, beta=0.1, lora=Lora(rank=4))
    assert lora.reference is None
    add_lora(lora.context.model, Lora(rank=4))
    trl_peer.move(lora.context.model.model.layers[0].self_attn.q_proj.lora_B, seed=1, by=0.5)
    full = tiny.grpo_stage(folder, made, beta=0.1)
    (ours,), (theirs,) = lora.collect(1).minibatches[0], full.collect(1).minibatches[0]
    torch.testing.assert_close(ours.columns["reference"], theirs.columns["reference"])
    with torch.no_grad():
        assert not torch.allclose(lora.context.module(ours)[0], ours.columns["reference"])


class Recording(torch.optim.SGD):
    """Keeps the gradients that it is asked to step along, and takes no step."""

    def step(self, closure=None):
        self.seen = [p.grad.clone() for group in self.param_groups for p in group["params"]]


@pytest.mark.parametrize("budget", [20, 10_000])
def test_the_loop_steps_along_that_gradient(budget, folder, tmp_path):
    made = tiny.rollout()
    optim = Optim(max_grad_norm=math.inf)
    stage, batch = collected(folder, made, token_budget=budget, beta=0.1, optim=optim)
    expected = tiny.backward(*collected(folder, made, padded=True, beta=0.1))
    optimizer = Recording(stage.context.module.parameters(), lr=0.0)
    with tiny.loop(stage, optimizer, tmp_path) as loop:
        loss, norms, metrics = loop.update.step(batch.minibatches[0], batch.columns)
    names = [name for name, _ in stage.context.model.named_parameters()]
    seen = dict(zip(names, optimizer.seen, strict=True))
    assert loss == pytest.approx(expected.loss, rel=1e-5)
    assert trl_peer.relative_distance(seen, expected.gradient) < 1e-5
    assert metrics == pytest.approx(expected.metrics, rel=1e-4, abs=1e-5)
    length = math.sqrt(sum(float(g.square().sum()) for g in expected.gradient.values()))
    assert norms == {"grad_norm": pytest.approx(length, rel=1e-5)}
