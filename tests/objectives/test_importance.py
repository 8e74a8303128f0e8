"""Importance weights by hand; `test_trl_equivalence.py` compares them with TRL's."""

import math

import pytest
import torch

from align.objectives.importance import importance_weights

# Three completions of 2, 1 and 3 tokens; ratios trainer / sampler per token:
RATIOS = torch.tensor([2.0, 4.0, 0.5, 1.0, 0.1, 1.0])
LAYOUT = {"sequence": torch.tensor([0, 0, 1, 2, 2, 2]), "lengths": torch.tensor([2, 1, 3])}
SAMPLER = torch.tensor([-1.0, -2.0, -0.3, -4.0, -2.0, -0.1])
TRAINER = SAMPLER + RATIOS.log()


@pytest.mark.parametrize(
    ("level", "how", "expected"),
    [
        ("token", "truncate", [2.0, 3.0, 0.5, 1.0, 0.2, 1.0]),
        ("token", "mask", [2.0, 0.0, 0.5, 1.0, 0.0, 1.0]),
        ("sequence", "truncate", [3.0, 3.0, 0.5, 0.2, 0.2, 0.2]),
        ("sequence", "mask", [0.0, 0.0, 0.5, 0.0, 0.0, 0.0]),
    ],
)
def test_levels_and_modes(level, how, expected):
    weights = importance_weights(
        trainer=TRAINER, sampler=SAMPLER, **LAYOUT, level=level, how=how, low=0.2, high=3.0
    )
    assert weights.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [({"high": 3.0}, [2, 0, 0.5, 1, 0.1, 1]), ({"low": 0.2}, [2, 4, 0.5, 1, 0, 1])],
)
def test_one_bound_alone(bound, expected):
    weights = importance_weights(trainer=TRAINER, sampler=SAMPLER, **LAYOUT, how="mask", **bound)
    assert weights.tolist() == pytest.approx(expected)


def test_a_token_the_sampler_has_no_number_for_counts_as_agreement():
    sampler = SAMPLER.clone()
    sampler[1] = math.nan
    kwargs = {"trainer": TRAINER, "sampler": sampler, "high": 9.0, **LAYOUT}
    assert importance_weights(**kwargs)[1].item() == 1.0
    by_sequence = importance_weights(**kwargs, level="sequence")
    assert by_sequence[:2].tolist() == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize("how", ["truncate", "mask"])
def test_a_trainer_gone_wrong_stays_visible(how):
    trainer = TRAINER.clone()
    trainer[0] = math.nan
    weights = importance_weights(trainer=trainer, sampler=SAMPLER, **LAYOUT, how=how, high=3.0)
    assert weights.isnan().tolist() == [True] + [False] * 5


def test_an_overflowing_ratio_is_held():
    far = {"trainer": TRAINER + 100, "sampler": SAMPLER, **LAYOUT, "high": 3.0}
    assert importance_weights(**far).tolist() == [3.0] * 6
    assert importance_weights(**far, how="mask").tolist() == [0.0] * 6


def test_weights_are_constants():
    trainer = TRAINER.clone().requires_grad_()
    weights = importance_weights(trainer=trainer, sampler=SAMPLER, **LAYOUT, high=3.0)
    assert not weights.requires_grad


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "without a bound"),
        ({"level": "batch", "high": 3.0}, "'batch'.*token or sequence"),
        ({"how": "drop", "high": 3.0}, "'drop'.*truncate or mask"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        importance_weights(trainer=TRAINER, sampler=SAMPLER, **LAYOUT, **wrong)
