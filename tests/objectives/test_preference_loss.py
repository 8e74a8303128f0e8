"""DPO, IPO, hinge and KTO by hand and by finite differences; `test_preference_trl` has TRL's side.

Numbers by hand use ln 3, because sigmoid(ln 3) = 1 / (1 + 1/3) = 3/4 and sigmoid(-ln 3) = 1/4.
"""

import math

import pytest
import torch

from align.objectives.preference import kto_loss, kto_reference_point, pair_loss

LN2, LN3 = math.log(2), math.log(3)
LENGTHS = {"chosen_lengths": torch.tensor([3, 1]), "rejected_lengths": torch.tensor([2, 4])}
LOSSES = ["sigmoid", "ipo", "hinge"]


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def one_pair(chosen, rejected, *, loss="sigmoid", beta=0.5, lengths=(1, 1), **options):
    return pair_loss(
        chosen=float64(chosen),
        rejected=float64(rejected),
        chosen_lengths=torch.tensor(lengths[:1]),
        rejected_lengths=torch.tensor(lengths[1:]),
        loss=loss,
        beta=beta,
        **options,
    ).item()


def test_dpo_where_the_policy_is_the_reference():
    """Both log-ratios are 0: -ln sigmoid(0) = ln 2. Its derivative by beta d is -sigmoid(0) = -1/2,
    so by the chosen log-ratio -beta / 2 and by the rejected one +beta / 2."""
    chosen, rejected = (torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    pairs = {"chosen": chosen, "rejected": rejected} | LENGTHS
    loss = pair_loss(**pairs, loss="sigmoid", beta=0.3)
    assert loss.tolist() == pytest.approx([LN2, LN2], rel=1e-14)
    loss.sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-0.15, -0.15], rel=1e-14)
    assert rejected.grad.tolist() == pytest.approx([0.15, 0.15], rel=1e-14)


def test_dpo_by_hand():
    """beta d = 0.5 * 2 ln 3 = ln 3, so the loss is -ln 3/4; the other way round it is -ln 1/4."""
    assert one_pair(LN3, -LN3) == pytest.approx(math.log(4 / 3), rel=1e-14)
    assert one_pair(-LN3, LN3) == pytest.approx(math.log(4), rel=1e-14)


def test_label_smoothing_by_hand():
    """0.9 of the pair as labelled, 0.1 of it the other way round: 0.9 ln 4/3 + 0.1 ln 4."""
    expected = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert one_pair(LN3, -LN3, label_smoothing=0.1) == pytest.approx(expected, rel=1e-14)


def test_smoothed_loss_is_least_where_the_label_is_believed_to_the_share_it_is_right():
    """The derivative by beta d is sigmoid(beta d) - (1 - e): zero at e = 1/4 and beta d = ln 3."""
    chosen = float64(2 * LN3).requires_grad_()
    one = {"chosen_lengths": torch.ones(1), "rejected_lengths": torch.ones(1)}
    pair = {"chosen": chosen, "rejected": float64(0.0)} | one
    pair_loss(**pair, loss="sigmoid", beta=0.5, label_smoothing=0.25).backward()
    assert chosen.grad.item() == pytest.approx(0.0, abs=1e-15)


def test_hinge_by_hand():
    """beta d = 0.5 * 1 leaves 1 - 0.5; beta d = 0.5 * 3 is beyond the margin; -0.5 adds to it."""
    losses = [one_pair(chosen, 1.0, loss="hinge") for chosen in (2.0, 4.0, 0.0)]
    assert losses == [0.5, 0.0, 1.5]


def test_ipo_by_hand():
    """6 over 3 tokens is 2 a token, -1 over 2 tokens -1/2: a gap of 5/2. The wanted one is
    1 / (2 * 0.25) = 2, so the loss is (1/2)^2; a gap of 2 costs nothing and a larger one does."""
    assert one_pair(6.0, -1.0, loss="ipo", beta=0.25, lengths=(3, 2)) == 0.25
    assert one_pair(6.0, 0.0, loss="ipo", beta=0.25, lengths=(3, 2)) == 0.0


@pytest.mark.parametrize(
    ("label", "log_ratio", "expected"),
    [
        (True, 0.3, 0.5),
        (False, 0.3, 0.5),
        (True, 0.3 + 2 * LN3, 0.25),
        (False, 0.3 + 2 * LN3, 0.75),
        (True, 0.3 - 2 * LN3, 0.75),
        (False, 0.3 - 2 * LN3, 0.25),
    ],
)
def test_kto_by_hand(label, log_ratio, expected):
    """1 - sigmoid(+-0.5 (log_ratio - 0.3)): 1/2 at the reference point, 1 - 3/4 where a desirable
    completion is 2 ln 3 above it, 3/4 where an undesirable one is; times its own weight."""
    loss = kto_loss(
        log_ratio=float64(log_ratio),
        desirable=torch.tensor([label]),
        reference_point=torch.tensor(0.3, dtype=torch.float64),
        beta=0.5,
        desirable_weight=3.0,
        undesirable_weight=5.0,
    )
    assert loss.item() == pytest.approx((3.0 if label else 5.0) * expected, rel=1e-14)


def test_kto_gradient_weight_at_the_reference_point():
    """The derivative of sigmoid at 0 is 1/4: beta / 4, downwards for a desirable completion."""
    log_ratio = torch.zeros(2, requires_grad=True)
    labels, zero = torch.tensor([True, False]), torch.tensor(0.0)
    kto_loss(log_ratio=log_ratio, desirable=labels, reference_point=zero, beta=0.2).sum().backward()
    assert log_ratio.grad.tolist() == pytest.approx([-0.05, 0.05])


def test_reference_point_is_the_mean_and_not_below_zero():
    assert kto_reference_point(float64(3.0, -1.0)).item() == 1.0
    assert kto_reference_point(float64(-3.0, 1.0)).item() == 0.0
    assert kto_reference_point(torch.tensor([1.0078125, 1.0]).bfloat16()).item() == 1.00390625


def test_reference_point_is_a_constant():
    log_ratio = float64(3.0, 1.0).requires_grad_()
    assert not kto_reference_point(log_ratio).requires_grad
    rows = {"log_ratio": float64(1.0), "desirable": torch.tensor([True]), "beta": 0.5}
    assert not kto_loss(**rows, reference_point=log_ratio.mean()).requires_grad


@pytest.mark.parametrize("loss", [*LOSSES, "smoothed"])
def test_pair_gradient_by_finite_differences(loss):
    options = {"loss": loss} if loss in LOSSES else {"loss": "sigmoid", "label_smoothing": 0.2}

    def losses(chosen, rejected):
        return pair_loss(chosen=chosen, rejected=rejected, beta=0.4, **options, **LENGTHS)

    log_ratios = (float64(1.3, -0.4).requires_grad_(), float64(0.2, 0.7).requires_grad_())
    assert torch.autograd.gradcheck(losses, log_ratios)


def test_kto_gradient_by_finite_differences():
    labels, point = torch.tensor([True, False, False]), torch.tensor(0.2, dtype=torch.float64)
    log_ratio = float64(1.3, -0.4, 0.9).requires_grad_()
    rows = {"desirable": labels, "reference_point": point, "beta": 0.4}
    assert torch.autograd.gradcheck(lambda x: kto_loss(log_ratio=x, **rows), (log_ratio,))


@pytest.mark.parametrize("loss", LOSSES)
def test_large_margins_stay_finite(loss):
    """In float32 exp(1000) is infinite; -ln sigmoid(-1000) is 1000 all the same."""
    chosen = torch.tensor([1e4, -1e4], requires_grad=True)
    pairs = {"chosen": chosen, "rejected": torch.zeros(2)} | LENGTHS
    losses = pair_loss(**pairs, loss=loss, beta=0.1)
    losses.sum().backward()
    assert losses.isfinite().all() and chosen.grad.isfinite().all()
    if loss == "sigmoid":
        assert losses.tolist() == [0.0, 1000.0]
        assert chosen.grad.tolist() == pytest.approx([0.0, -0.1])


def test_kto_keeps_the_digits_of_a_small_loss():
    """sigmoid(-40) = exp(-40) to 17 digits, where 1 - sigmoid(40) is 0 in float32 (and float64)."""
    rows = {"desirable": torch.tensor([True, False]), "reference_point": torch.tensor(0.0)}
    losses = kto_loss(log_ratio=torch.tensor([40.0, -40.0]), beta=1.0, **rows)
    assert losses.tolist() == pytest.approx([math.exp(-40)] * 2, rel=1e-5, abs=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_float32(loss):
    chosen, rejected = torch.tensor([1.3, -0.4]).bfloat16(), torch.tensor([0.2, 0.7]).bfloat16()
    half = pair_loss(chosen=chosen, rejected=rejected, loss=loss, beta=0.3, **LENGTHS)
    pairs = {"chosen": chosen.float(), "rejected": rejected.float()} | LENGTHS
    assert half.dtype == torch.float32
    assert torch.equal(half, pair_loss(**pairs, loss=loss, beta=0.3))


def test_kto_in_half_precision_is_computed_in_float32():
    log_ratio = torch.tensor([1.3, -0.4]).bfloat16()
    rows = {"desirable": torch.tensor([True, False]), "reference_point": torch.tensor(0.2)}
    half = kto_loss(log_ratio=log_ratio, beta=0.3, **rows)
    assert half.dtype == torch.float32
    assert torch.equal(half, kto_loss(log_ratio=log_ratio.float(), beta=0.3, **rows))


PAIR = {"chosen": torch.ones(2), "rejected": torch.zeros(2), "loss": "sigmoid", "beta": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "sigmod"}, "unknown loss 'sigmod'; choose one of: sigmoid, ipo, hinge"),
        ({"beta": 0.0}, "beta must be positive, got 0.0"),
        ({"beta": math.nan}, "beta must be positive, got nan"),
        ({"label_smoothing": 0.5}, r"label_smoothing=0.5 is not a share .* \[0, 0.5\)"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1 is not a share"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "no meaning for loss 'ipo'; pass label_smoo"),
        ({"label_smoothing": 0.1, "loss": "hinge"}, "no meaning for loss 'hinge'"),
        ({"rejected": torch.zeros(2, 1)}, r"rejected \[2, 1\].*squeeze"),
        ({"chosen_lengths": torch.ones(3)}, r"chosen_lengths \[3\]"),
    ],
)
def test_bad_pairs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        pair_loss(**(PAIR | LENGTHS | change))


ROWS = {
    "log_ratio": torch.ones(2),
    "desirable": torch.tensor([True, False]),
    "reference_point": torch.tensor(0.0),
    "beta": 0.1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": -0.1}, "beta must be positive, got -0.1"),
        ({"desirable": torch.tensor([1, 0])}, "must be bool, got torch.int64; use labels == 1"),
        ({"desirable": torch.tensor([True])}, r"desirable \[1\]"),
        ({"reference_point": torch.zeros(2)}, r"got shape \[2\]; use kto_reference_point"),
    ],
)
def test_bad_rows_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        kto_loss(**(ROWS | change))


def test_a_reference_point_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one mismatched completion"):
        kto_reference_point(torch.zeros(0))
