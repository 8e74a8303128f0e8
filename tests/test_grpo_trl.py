"""The GRPO stage against TRL 1.16's own GRPOTrainer: loss, gradient and figures of one batch.

Both get the same weights and the same samples. TRL scores and computes the batch padded, in one
piece; the stage collects it from a prepared sampler and computes it in shared-prefix packs of at
most 40 tokens. The weights are moved before scoring, so that the policy differs from the reference,
and after it, so that ratios leave the clip bounds. TRL's `use_bias_correction_kl` is off: the stage
has the GRPO paper's plain k3.
"""

from dataclasses import replace

import pytest
import tiny
import torch
import trl_peer

BETA = {"beta": 0.1}
TRL_BETA = BETA | {"use_bias_correction_kl": False}

# TRL's configuration, the stage's. TRL's upper clip bound is the lower one unless given.
CASES = {
    "grpo": ({"loss_type": "grpo"}, {"reduction": "grpo"}),
    "bnpo": ({"loss_type": "bnpo"}, {"reduction": "bnpo"}),
    "dapo": ({"loss_type": "dapo"}, {"reduction": "dapo"}),
    "dr_grpo": (
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        {"reduction": "dr_grpo", "scale": "none"},
    ),
    "batch scale": (
        {"loss_type": "dapo", "scale_rewards": "batch"},
        {"reduction": "dapo", "scale": "batch"},
    ),
    "higher clip": (
        {"loss_type": "dapo", "epsilon": 0.1, "epsilon_high": 0.28},
        {"reduction": "dapo", "eps_low": 0.1, "eps_high": 0.28},
    ),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.02},
        {"reduction": "grpo", "objective": "gspo", "eps_low": 0.02, "eps_high": 0.02},
    ),
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.1},
        {"reduction": "dapo", "objective": "cispo", "ratio_max": 1.1},
    ),
    "temperature": (
        {"loss_type": "grpo", "temperature": 0.7},
        {"reduction": "grpo", "temperature": 0.7},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trl_peer.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make_rollout(prompts=2):
    return trl_peer.make_rollout(
        prompts=prompts, generations=4, longest=tiny.LONGEST, missing=(5,), seed=3
    )


def both(folder, out, rollout, *, theirs, ours):
    """(TRL's loss, gradient, figures), (our step, its figures) of the same batch."""
    trainer = trl_peer.make_trainer(
        folder, out, batch=len(rollout.prompts), num_iterations=2, **theirs
    )
    trl_peer.move(trainer.model, seed=1, by=0.05)
    inputs = trl_peer.score(trainer, rollout)
    trl_peer.move(trainer.model, seed=2, by=0.05)
    loss, gradient = trl_peer.loss_and_gradient(trainer, inputs)

    settings = {"iterations": 2, "eps_low": 0.2, "eps_high": 0.2, "token_budget": 40} | ours
    stage = tiny.grpo_stage(folder, rollout, **settings)
    trl_peer.move(stage.context.model, seed=1, by=0.05)
    batch = stage.collect(1)
    trl_peer.move(stage.context.model, seed=2, by=0.05)
    assert len(batch.minibatches[0]) > 1
    return (loss, gradient, trainer._metrics["train"]), tiny.backward(stage, batch)


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_trl(case, beta, folder, tmp_path):
    theirs, ours = CASES[case]
    if beta:
        theirs, ours = theirs | TRL_BETA, ours | BETA
    (loss, gradient, figures), step = both(
        folder, tmp_path, make_rollout(), theirs=theirs, ours=ours
    )
    assert step.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert trl_peer.relative_distance(step.gradient, gradient) < 1e-5
    assert step.metrics["clip_fraction"] > 0
    if beta:  # every completion is computed, so means run over the same tokens
        tokens = step.metrics["tokens"]
        assert step.metrics["kl"] / tokens == pytest.approx(figures["kl"][-1], rel=1e-4)
        assert step.metrics["entropy"] / tokens == pytest.approx(figures["entropy"][-1], rel=1e-5)
        if ours.get("objective") is None:
            clipped = figures["clip_ratio/region_mean"][-1]
            assert step.metrics["clip_fraction"] / tokens == pytest.approx(clipped, rel=1e-5)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dapo", "dr_grpo"])
def test_masked_truncated_completions_equal_trl(loss_type, folder, tmp_path):
    rollout = make_rollout(3)
    for index in (2, 9):
        rollout.completions[index][:] = range(5, 5 + tiny.LONGEST)
    (loss, gradient, _), step = both(
        folder,
        tmp_path,
        rollout,
        theirs={"loss_type": loss_type, "mask_truncated_completions": True} | TRL_BETA,
        ours={"reduction": loss_type, "mask_truncated": True} | BETA,
    )
    assert step.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert trl_peer.relative_distance(step.gradient, gradient) < 1e-5


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_importance_correction_equals_trl(level, folder, tmp_path):
    """The sampler's log-probs differ from the trainer's by noise of 0.3 nats; cap 1.2."""
    rollout = make_rollout()
    trainer = trl_peer.make_trainer(
        folder,
        tmp_path,
        vllm=True,
        num_iterations=2,
        loss_type="grpo",
        vllm_importance_sampling_mode=f"{level}_truncate",
        vllm_importance_sampling_clip_min=None,
        vllm_importance_sampling_clip_max=1.2,
        **TRL_BETA,
    )
    with torch.no_grad():
        old = trl_peer.flat_logprobs(trainer.model, rollout)
    noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(4))
    sampler = (old + 0.3 * noise).split(rollout.lengths.tolist())
    rollout = replace(rollout, sampler=[part.tolist() for part in sampler])
    inputs = trl_peer.score(trainer, rollout)
    trl_peer.move(trainer.model, seed=2, by=0.05)
    loss, gradient = trl_peer.loss_and_gradient(trainer, inputs)

    stage = tiny.grpo_stage(
        folder,
        rollout,
        iterations=2,
        reduction="grpo",
        eps_high=0.2,
        token_budget=40,
        importance=level,
        importance_cap=1.2,
        **BETA,
    )
    batch = stage.collect(1)
    trl_peer.move(stage.context.model, seed=2, by=0.05)
    step = tiny.backward(stage, batch)
    assert 0 < step.metrics["mismatch/capped"] < step.metrics["tokens"]
    assert step.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert trl_peer.relative_distance(step.gradient, gradient) < 1e-5
