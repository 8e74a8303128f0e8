"""DPO, IPO, hinge and KTO: values and gradients of TRL 1.16's own trainers on the same batch.

TRL pads the batch and uses its fused head; ours takes whole logits of each sequence alone, then
these functions. The policy is moved away from the reference first.
"""

import math

import preference_peer
import pytest
import torch
import trl_peer
from datasets import Dataset
from test_trl_equivalence import one_thread  # noqa: F401  (a fixture of this module too)
from trl_peer import move

from align.objectives.preference import kto_loss, kto_reference_point, pair_loss
from align.objectives.reduce import sequence_sum

LN2 = math.log(2)
SMOOTHING = 0.1


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return trl_peer.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def log_ratios(trainer, prompts, completions):
    """[N] of the completions, and [N] their lengths."""
    rollout = trl_peer.Rollout(prompts=prompts, completions=completions, rewards=[])
    layout = {"sequence": rollout.sequence, "lengths": rollout.lengths}
    policy = trl_peer.flat_logprobs(trainer.model, rollout)
    with torch.no_grad():
        reference = trl_peer.flat_logprobs(trainer.ref_model, rollout)
    return sequence_sum(policy - reference, **layout), rollout.lengths


def pair_losses(trainer, pairs, **options):
    prompts = [pair.prompt for pair in pairs]
    chosen, chosen_lengths = log_ratios(trainer, prompts, [pair.chosen for pair in pairs])
    rejected, rejected_lengths = log_ratios(trainer, prompts, [pair.rejected for pair in pairs])
    lengths = {"chosen_lengths": chosen_lengths, "rejected_lengths": rejected_lengths}
    return pair_loss(chosen=chosen, rejected=rejected, **lengths, **options)


def loss_and_gradient(trainer, losses):
    trainer.model.zero_grad()
    losses.mean().backward()
    return losses.mean().item(), trl_peer.gradient(trainer.model)


# TRL's configuration and our options. TRL 1.16 has no smoothing in `sigmoid`; its `robust` loss is
# ((1 - e) R - e W) / (1 - 2 e), R and W the pair as labelled and the other way round. So cDPO's
# (1 - e) R + e W is 2 (1 - e) sigmoid - (1 - 2 e) robust, which its loss weights can express.
PAIR_CASES = {
    "sigmoid": ({"loss_type": ["sigmoid"]}, {"loss": "sigmoid"}),
    "ipo": ({"loss_type": ["ipo"]}, {"loss": "ipo"}),
    "hinge": ({"loss_type": ["hinge"]}, {"loss": "hinge"}),
    "smoothed": (
        {
            "loss_type": ["sigmoid", "robust"],
            "loss_weights": [2 * (1 - SMOOTHING), -(1 - 2 * SMOOTHING)],
            "label_smoothing": SMOOTHING,
        },
        {"loss": "sigmoid", "label_smoothing": SMOOTHING},
    ),
}


@pytest.mark.parametrize("case", PAIR_CASES)
def test_pair_loss_and_gradient_equal_trl(case, model_folder, tmp_path):
    config, options = PAIR_CASES[case]
    trainer = preference_peer.dpo_trainer(model_folder, tmp_path, beta=1.0, **config)
    pairs = preference_peer.make_pairs(6, seed=1)
    move(trainer.model, seed=1, by=0.05)
    expected, expected_gradient = preference_peer.dpo(trainer, pairs)
    losses = pair_losses(trainer, pairs, beta=1.0, **options)
    loss, gradient = loss_and_gradient(trainer, losses)
    assert abs(loss - LN2) > 0.01 and any(len(p.chosen) != len(p.rejected) for p in pairs)
    if case == "hinge":
        assert 0 < losses.count_nonzero() < len(losses)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert trl_peer.relative_distance(gradient, expected_gradient) < 1e-5


def test_untouched_policy_has_trl_lose_ln_2(model_folder, tmp_path):
    trainer = preference_peer.dpo_trainer(model_folder, tmp_path, beta=0.5)
    expected, _ = preference_peer.dpo(trainer, preference_peer.make_pairs(3))
    assert expected == pytest.approx(LN2, rel=1e-6)


KTO_CASES = {
    "mixed": ((True, False, False), 1),
    "held at zero": ((True, False, False), 2),
    "desirable alone": ((True,), 1),
    "undesirable alone": ((False,), 1),
}


@pytest.mark.parametrize("case", KTO_CASES)
def test_kto_loss_and_gradient_equal_trl(case, model_folder, tmp_path):
    labels, seed = KTO_CASES[case]
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.75}
    trainer = preference_peer.kto_trainer(model_folder, tmp_path, beta=0.5, **weights)
    rows = preference_peer.make_judged(7, labels=labels)
    move(trainer.model, seed=seed, by=0.05)
    expected, expected_gradient = preference_peer.kto(trainer, rows)
    prompts = [row.prompt for row in rows]
    others, _ = log_ratios(trainer, prompts, preference_peer.mismatched(rows))
    point = kto_reference_point(others)
    log_ratio, _ = log_ratios(trainer, prompts, [row.completion for row in rows])
    desirable = torch.tensor([row.label for row in rows])
    losses = kto_loss(
        log_ratio=log_ratio, desirable=desirable, reference_point=point, beta=0.5, **weights
    )
    loss, gradient = loss_and_gradient(trainer, losses)
    assert (point > 0.1) == (case != "held at zero") and abs(others.mean()) > 0.1
    assert point.item() == pytest.approx(trainer._metrics["train"]["kl"][-1], rel=1e-5)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert trl_peer.relative_distance(gradient, expected_gradient) < 1e-5


def test_trl_itself_mismatches_completions_in_this_way(model_folder, tmp_path):
    trainer = preference_peer.kto_trainer(model_folder, tmp_path)
    rows = preference_peer.make_judged(5)
    prepared = trainer._prepare_dataset(
        Dataset.from_list(
            [
                {"prompt": words(row.prompt), "completion": " " + words(row.completion[:-1])}
                | {"label": row.label}
                for row in rows
            ]
        ),
        trainer.processing_class,
        trainer.args,
        "train",
    )
    assert prepared["completion_ids"] == [row.completion for row in rows]
    assert prepared["KL_completion_ids"] == preference_peer.mismatched(rows)


def test_batches_for_our_packs_hold_the_same_rows():
    pairs, rows = preference_peer.make_pairs(3), preference_peer.make_judged(3)
    groups = preference_peer.pair_groups(pairs) + preference_peer.judged_groups(rows)
    assert [group.prompt for group in groups] == [row.prompt for row in [*pairs, *rows]]
    completions = [[completion.ids for completion in group.completions] for group in groups]
    first, second, third = (row.completion for row in rows)
    assert completions[:3] == [[pair.chosen, pair.rejected] for pair in pairs]
    assert completions[3:] == [[first, third], [second, first], [third, second]]


def words(ids):
    return " ".join(f"w{token}" for token in ids)
