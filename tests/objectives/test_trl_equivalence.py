"""Values and gradients of TRL 1.16's own GRPOTrainer on the same batch.

TRL: padded [B, T] tensors, its fused head, its scoring and loss. Ours: each sequence alone through
the plain model, flat [C] tensors, these functions. The weights are moved between scoring and loss,
so that ratios leave the clip bounds, and before it, so that the policy differs from the reference.
"""

import math
from dataclasses import replace

import pytest
import torch
import trl_peer
from trl import RLOOTrainer
from trl_peer import move

from align.objectives import advantage, importance, policy, reduce

GENERATIONS, LONGEST = 4, 12


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So small a model gains nothing from a second thread, and loses much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return trl_peer.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


class Ours:
    """The same batch through these functions; every number computed here and not by TRL."""

    def __init__(self, trainer, rollout, temperature=1.0):
        self.rollout, self.model, self.temperature = rollout, trainer.model, temperature
        self.layout = {"sequence": rollout.sequence, "lengths": rollout.lengths}
        rewards = torch.tensor([math.nan if r is None else r for r in rollout.rewards])
        self.rewards = rewards.view(-1, GENERATIONS)
        with torch.no_grad():
            self.old = self.logprobs(trainer.model)
            self.reference = self.logprobs(trainer.ref_model) if trainer.ref_model else None

    def logprobs(self, model):
        return trl_peer.flat_logprobs(model, self.rollout, temperature=self.temperature)

    def token_loss(self, *, scale="group", **options):
        scores = advantage.group_advantage(self.rewards, scale=scale).flatten()
        return policy.grpo(
            policy=self.logprobs(self.model),
            old=self.old,
            advantage=scores[self.rollout.sequence],
            reference=self.reference,
            **self.layout,
            **options,
        )

    def loss_and_gradient(self, result, how, **counts):
        self.model.zero_grad()
        lengths = self.rollout.lengths
        counts = {"sequences": len(lengths), "tokens": int(lengths.sum())} | counts
        weights = reduce.token_weights(lengths, how, max_tokens=LONGEST, **counts)
        loss = reduce.weighted_sum(result.loss, weights, sequence=self.rollout.sequence)
        loss.backward()
        return loss.item(), trl_peer.gradient(self.model)


TRL_GSPO = {"importance_sampling_level": "sequence", "epsilon": 0.02}
GSPO = {"level": "sequence", "epsilon_low": 0.02, "epsilon_high": 0.02}

# TRL's configuration, our reduction, our options.
CASES = {
    "grpo": ({"loss_type": "grpo"}, "grpo", {}),
    "bnpo": ({"loss_type": "bnpo"}, "bnpo", {}),
    "dapo": ({"loss_type": "dapo"}, "dapo", {}),
    "dr_grpo": ({"loss_type": "dr_grpo", "scale_rewards": "none"}, "dr_grpo", {"scale": "none"}),
    "batch scale": ({"loss_type": "grpo", "scale_rewards": "batch"}, "grpo", {"scale": "batch"}),
    "epsilon_high": (
        {"loss_type": "dapo", "epsilon": 0.1, "epsilon_high": 0.28},
        "dapo",
        {"epsilon_low": 0.1, "epsilon_high": 0.28},
    ),
    "beta": (
        {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": False},
        "grpo",
        {"beta": 0.1},
    ),
    "beta, weighted": (
        {"loss_type": "grpo", "beta": 0.1},
        "grpo",
        {"beta": 0.1, "kl_weighting": "ratio"},
    ),
    "gspo": ({"loss_type": "grpo", **TRL_GSPO}, "grpo", GSPO),
    "gspo, beta, weighted": (
        {"loss_type": "dapo", "beta": 0.1, **TRL_GSPO},
        "dapo",
        {"beta": 0.1, "kl_weighting": "ratio", **GSPO},
    ),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 1.1}, "dapo", {"ratio_max": 1.1}),
    "cispo, beta": (
        {
            "loss_type": "cispo",
            "epsilon_high": 1.1,
            "beta": 0.1,
            "use_bias_correction_kl": False,
        },
        "dapo",
        {"ratio_max": 1.1, "beta": 0.1},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_trl(case, model_folder, tmp_path):
    config, how, options = CASES[case]
    # With num_iterations=2 TRL keeps the log-probabilities of the sampling weights.
    trainer = trl_peer.make_trainer(model_folder, tmp_path, num_iterations=2, **config)
    rollout = trl_peer.make_rollout(
        prompts=2, generations=GENERATIONS, longest=LONGEST, missing=(5,)
    )
    move(trainer.model, seed=1, by=0.05)
    inputs = trl_peer.score(trainer, rollout)
    ours = Ours(trainer, rollout)
    move(trainer.model, seed=2, by=0.05)
    expected, expected_gradient = trl_peer.loss_and_gradient(trainer, inputs)
    result = ours.token_loss(**options)
    loss, gradient = ours.loss_and_gradient(result, how)
    assert 0 < result.clipped.sum() < len(result.clipped)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert trl_peer.relative_distance(gradient, expected_gradient) < 1e-5
    if "clip_ratio/region_mean" in trainer._metrics["train"] and options.get("level") is None:
        clipped = trainer._metrics["train"]["clip_ratio/region_mean"][-1]
        assert result.clipped.float().mean().item() == pytest.approx(clipped, rel=1e-6)
    if options.get("beta") and "kl_weighting" not in options:
        mean = trainer._metrics["train"]["kl"][-1]
        assert result.kl.mean().item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_advantage_equals_trl(scale, model_folder, tmp_path):
    trainer = trl_peer.make_trainer(model_folder, tmp_path, scale_rewards=scale, batch=16)
    rollout = trl_peer.make_rollout(
        prompts=4, generations=GENERATIONS, longest=3, missing=(2, 4, 5, 6)
    )
    expected = trl_peer.score(trainer, rollout)["advantages"]
    result = advantage.group_advantage(Ours(trainer, rollout).rewards, scale=scale).flatten()
    assert expected.count_nonzero() == 11  # the group with one reward left has nothing to learn
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_leave_one_out_equals_trl(model_folder, tmp_path):
    trainer = trl_peer.make_trainer(model_folder, tmp_path, kind=RLOOTrainer, batch=16, beta=0.0)
    rollout = trl_peer.make_rollout(
        prompts=4, generations=GENERATIONS, longest=3, missing=(2, 4, 5, 6)
    )
    expected = trl_peer.score(trainer, rollout)["advantages"]
    rewards = torch.tensor([math.nan if r is None else r for r in rollout.rewards]).view(4, -1)
    assert expected.count_nonzero() == 11
    torch.testing.assert_close(
        advantage.leave_one_out(rewards).flatten(), expected, rtol=1e-5, atol=1e-6
    )


def test_batch_normalisation_equals_trl(model_folder, tmp_path):
    trainer = trl_peer.make_trainer(
        model_folder,
        tmp_path,
        kind=RLOOTrainer,
        batch=16,
        beta=0.0,
        normalize_advantages=True,
    )
    rollout = trl_peer.make_rollout(prompts=4, generations=GENERATIONS, longest=3)
    expected = trl_peer.score(trainer, rollout)["advantages"]
    baselined = advantage.leave_one_out(torch.tensor(rollout.rewards).view(4, -1))
    result = advantage.reinforce_plus_plus(baselined).flatten()
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("how", ["truncate", "mask"])
def test_importance_correction_equals_trl(level, how, model_folder, tmp_path):
    bounds = {"low": 0.7, "high": 1.5}
    trainer = trl_peer.make_trainer(
        model_folder,
        tmp_path,
        vllm=True,
        loss_type="grpo",
        beta=0.1,
        use_bias_correction_kl=False,
        vllm_importance_sampling_mode=f"{level}_{how}",
        vllm_importance_sampling_clip_min=bounds["low"],
        vllm_importance_sampling_clip_max=bounds["high"],
    )
    rollout = trl_peer.make_rollout(prompts=2, generations=GENERATIONS, longest=LONGEST)
    ours = Ours(trainer, rollout)
    noise = torch.randn(ours.old.shape, generator=torch.Generator().manual_seed(4))
    sampler = ours.old + 0.3 * noise
    sampler[3] = math.nan
    lengths = rollout.lengths.tolist()
    inputs = trl_peer.score(
        trainer, replace(rollout, sampler=[part.tolist() for part in sampler.split(lengths)])
    )
    weights = importance.importance_weights(
        trainer=ours.old, sampler=sampler, **ours.layout, level=level, how=how, **bounds
    )
    expected = inputs["importance_sampling_ratio"].expand(-1, max(lengths))
    flat = torch.cat([row[:length] for row, length in zip(expected, lengths, strict=True)])
    torch.testing.assert_close(weights, flat, rtol=1e-5, atol=1e-6)
    assert 0 < (weights == (bounds["high"] if how == "truncate" else 0)).sum() < len(weights)

    move(trainer.model, seed=2, by=0.05)
    expected_loss, expected_gradient = trl_peer.loss_and_gradient(trainer, inputs)
    result = ours.token_loss(beta=0.1, correction=weights)
    loss, gradient = ours.loss_and_gradient(result, "grpo")
    assert loss == pytest.approx(expected_loss, rel=1e-5, abs=1e-6)
    assert trl_peer.relative_distance(gradient, expected_gradient) < 1e-5


def part_of(inputs, rows):
    """Some rows of TRL's scored batch; its token count stays that of the whole."""
    return {name: t[rows] if t.dim() else t for name, t in inputs.items()}


@pytest.mark.parametrize("how", ["grpo", "dapo", "dr_grpo"])
def test_trl_in_two_micro_batches_is_our_one_batch(how, model_folder, tmp_path):
    trainer = trl_peer.make_trainer(
        model_folder,
        tmp_path,
        batch=4,
        gradient_accumulation_steps=2,
        num_iterations=2,
        loss_type=how,
    )
    rollout = trl_peer.make_rollout(prompts=2, generations=GENERATIONS, longest=LONGEST)
    inputs = trl_peer.score(trainer, rollout)
    ours = Ours(trainer, rollout)
    move(trainer.model, seed=2, by=0.05)
    trainer.model.zero_grad()
    losses = [
        trainer.compute_loss(trainer.model, part_of(inputs, rows))
        for rows in (slice(0, 4), slice(4, 8))
    ]
    sum(losses).backward()
    expected = trl_peer.gradient(trainer.model)
    loss, gradient = ours.loss_and_gradient(ours.token_loss(), how)
    assert loss == pytest.approx(sum(losses).item(), rel=1e-5, abs=1e-6)
    assert trl_peer.relative_distance(gradient, expected) < 1e-5


def test_dapo_counts_the_tokens_of_the_rollout_over_its_optimizer_steps(model_folder, tmp_path):
    # One rollout of 8 completions, two optimizer steps of 4: each step's loss by the mean count.
    trainer = trl_peer.make_trainer(
        model_folder, tmp_path, batch=4, steps_per_generation=2, loss_type="dapo"
    )
    rollout = trl_peer.make_rollout(prompts=2, generations=GENERATIONS, longest=LONGEST)
    inputs = trl_peer.score(trainer, rollout)
    total = int(rollout.lengths.sum())
    tokens = reduce.tokens_per_step(rollout_tokens=total, optimizer_steps=2)
    for first in (0, 4):
        half = replace(
            rollout,
            prompts=rollout.prompts[first : first + 4],
            completions=rollout.completions[first : first + 4],
            rewards=rollout.rewards[first : first + 4],
        )
        assert half.lengths.sum() != tokens
        ours = Ours(trainer, half)
        _, expected = trl_peer.loss_and_gradient(trainer, part_of(inputs, slice(first, first + 4)))
        _, gradient = ours.loss_and_gradient(ours.token_loss(), "dapo", tokens=tokens)
        assert trl_peer.relative_distance(gradient, expected) < 1e-5


def test_temperature_scales_the_log_probabilities(model_folder, tmp_path):
    trainer = trl_peer.make_trainer(model_folder, tmp_path, num_iterations=2, temperature=0.7)
    rollout = trl_peer.make_rollout(prompts=2, generations=GENERATIONS, longest=LONGEST)
    inputs = trl_peer.score(trainer, rollout)
    ours = Ours(trainer, rollout, temperature=0.7)
    expected = inputs["old_per_token_logps"]
    torch.testing.assert_close(
        trl_peer.padded(ours.old, rollout), expected * inputs["completion_mask"]
    )
