"""One PPO batch has one gradient, of policy and critic, however it is laid out and cut; and that of
a critic on the policy's trunk is what finite differences say.
"""

from unittest.mock import patch

import ppo_stage
import pytest
import tiny
import torch
import trl_peer
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from align.config import Lora

BUDGETS = (2, 40, 80, 140, 20_000)  # halved where the critic is a model of its own

KINDS = {
    "separate": {"critic": "separate"},
    "shared": {"critic": "shared"},
    "adapters": {"critic": "adapters", "lora": Lora(rank=4)},
}
CASES = {
    "clip": {"beta": 0.2, "entropy": 0.05, "importance": "token", "importance_cap": 1.2},
    "penalty": {"objective": "penalty", "kl": "loss", "beta": 0.1, "reduction": "grpo"},
    "sequence": {"importance": "sequence", "value_clip": 0.0, "truncated_penalty": 1.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trl_peer.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def same(got, expected, stage):
    assert got.loss == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
    assert got.metrics == pytest.approx(expected.metrics, rel=1e-4, abs=1e-5)
    apart = {id(p) for p in stage.context.unwrapped.critic_parameters()}
    named = dict(stage.context.unwrapped.named_parameters())
    for critic in (True, False):  # the larger must not hide the smaller
        mine, theirs = (
            {n: g for n, g in step.gradient.items() if (id(named[n]) in apart) == critic}
            for step in (got, expected)
        )
        assert torch.cat([g.flatten() for g in theirs.values()]).norm() > 1e-3
        assert trl_peer.relative_distance(mine, theirs) < 1e-5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_budget_gives_the_padded_gradient(kind, case, folder):
    made = tiny.rollout()
    options = KINDS[kind] | CASES[case]
    expected = ppo_stage.backward(*ppo_stage.collected(folder, made, padded=True, **options))
    packs = set()
    for budget in BUDGETS:
        stage, batch = ppo_stage.collected(folder, made, token_budget=budget, **options)
        packs.add(len(batch.minibatches[0]))
        same(ppo_stage.backward(stage, batch), expected, stage)
    assert len(packs) >= 4  # the budgets did cut differently


@pytest.mark.parametrize("kind", KINDS)
def test_each_minibatch_has_one_gradient(kind, folder):
    """Five groups in two minibatches, of 2 and 3 groups; both layouts cut them alike."""
    made = tiny.rollout(5)
    options = {"minibatches": 2, "beta": 0.2} | KINDS[kind]
    padded = ppo_stage.collected(folder, made, padded=True, **options)
    cut = [ppo_stage.collected(folder, made, token_budget=b, **options) for b in BUDGETS[:3]]
    for index, sequences in enumerate((8, 12)):
        assert sum(one.sequences for one in padded[1].minibatches[index]) == sequences
        expected = ppo_stage.backward(*padded, index)
        for stage, batch in cut:
            same(ppo_stage.backward(stage, batch, index), expected, stage)


def test_a_separate_critic_and_the_policy_have_gradients_of_their_own(folder):
    """The policy's does not depend on the critic's loss, a shared trunk's does."""
    made = tiny.rollout()

    def of_policy(kind, weight):
        options = {"value_weight": weight} | KINDS[kind]
        step = ppo_stage.backward(*ppo_stage.collected(folder, made, **options))
        return {n: g for n, g in step.gradient.items() if n.startswith("policy.model.model.")}

    one, two = (of_policy("separate", weight) for weight in (0.5, 5.0))
    assert trl_peer.relative_distance(one, two) < 1e-6
    one, two = (of_policy("shared", weight) for weight in (0.5, 5.0))
    assert trl_peer.relative_distance(one, two) > 0.1


H = 1e-5


def norm_in_float64(self, states):
    """As it is in transformers, less the cast to float32."""
    scale = (states.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()
    return self.weight * states * scale


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_the_gradient_equals_finite_differences(kind, tmp_path):
    """In float64 throughout: along two random directions of each tensor, and of single weights. The
    loss is all of it, and a tensor of the trunk is moved under both heads at once.
    """
    small = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    tiny.model(LlamaConfig, **small, **heads, initializer_range=0.4).save_pretrained(tmp_path)
    trl_peer.tiny_tokenizer().save_pretrained(tmp_path)
    made = tiny.rollout(2)
    options = {"beta": 0.2, "entropy": 0.05, "importance": "token"} | KINDS[kind]
    stage, batch = ppo_stage.collected(tmp_path, made, **options)
    module = stage.context.unwrapped.double()
    # float() is what the library computes in.
    in_float64 = patch.object(LlamaRMSNorm, "forward", norm_in_float64)
    with in_float64, patch.object(torch.Tensor, "float", torch.Tensor.double):
        packs = batch.minibatches[0]
        sum(stage.loss(one)[0] for one in packs).backward()
        draw = torch.Generator().manual_seed(3)

        @torch.no_grad()
        def slope(weight, direction):
            sides = []
            for sign in (1, -1):
                weight += sign * H * direction
                sides.append(sum(float(stage.loss(one)[0]) for one in packs))
                weight -= sign * H * direction
            return (sides[0] - sides[1]) / (2 * H)

        for name, weight in module.named_parameters():
            for direction in directions(weight, draw):
                analytic = float((weight.grad * direction).sum())
                found = slope(weight.data, direction)
                assert analytic == pytest.approx(found, rel=1e-6, abs=1e-8), name
        trunk = module.policy.model.model.layers[0].mlp.down_proj.weight
        assert trunk.dtype == torch.float64 and trunk.grad.norm() > 1e-2


def directions(weight, draw):
    """Two over the whole tensor, one single entry."""
    for _ in range(2):
        yield torch.randn(weight.shape, generator=draw, dtype=torch.float64)
    single = torch.zeros(weight.numel(), dtype=torch.float64)
    single[int(torch.randint(weight.numel(), (), generator=draw))] = 1.0
    yield single.view_as(weight)
