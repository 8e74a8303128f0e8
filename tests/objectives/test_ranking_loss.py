"""Bradley-Terry and centring by hand, by finite differences, and against TRL 1.16's RewardTrainer.

Numbers by hand use sigmoid(ln 3) = 3/4. Against TRL: it pads the batch and reads the score at the
last token that is not padding; ours is the head on the last hidden state of each sequence alone.
"""

import math

import preference_peer
import pytest
import torch
import trl_peer
from test_trl_equivalence import one_thread  # noqa: F401  (a fixture of this module too)
from transformers import AutoModelForSequenceClassification

from align.objectives.ranking import bradley_terry, centring

LN2, LN3 = math.log(2), math.log(3)
CHOSEN = torch.tensor([1.5, -0.25, 2.0], dtype=torch.float64)
REJECTED = torch.tensor([0.5, 0.75, 2.0], dtype=torch.float64)
MARGIN = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)


def test_bradley_terry_by_hand():
    """Equal scores: -ln 1/2. A lead of ln 3: -ln 3/4; a lag of it: -ln 1/4."""
    chosen = torch.tensor([7.0, 1.0 + LN3, 1.0], dtype=torch.float64)
    rejected = torch.tensor([7.0, 1.0, 1.0 + LN3], dtype=torch.float64)
    expected = [LN2, math.log(4 / 3), math.log(4)]
    loss = bradley_terry(chosen=chosen, rejected=rejected)
    assert loss.tolist() == pytest.approx(expected, rel=1e-14)


def test_margin_by_hand():
    """A lead of ln 3 where ln 3 is asked for is worth a tie, one of 2 ln 3 a lead of ln 3."""
    chosen = torch.tensor([LN3, 2 * LN3], dtype=torch.float64)
    margin = torch.full((2,), LN3, dtype=torch.float64)
    loss = bradley_terry(chosen=chosen, rejected=torch.zeros(2).double(), margin=margin)
    assert loss.tolist() == pytest.approx([LN2, math.log(4 / 3)], rel=1e-14)


def test_centring_by_hand():
    """Sums 2, 0.5, 4; squares 4, 0.25, 16; a quarter of them."""
    assert centring(chosen=CHOSEN, rejected=REJECTED, coefficient=0.25).tolist() == [1, 0.0625, 4]


def test_gradient_by_finite_differences():
    scores = (CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_())

    def plain(chosen, rejected):
        return bradley_terry(chosen=chosen, rejected=rejected)

    def with_margin(chosen, rejected):
        return bradley_terry(chosen=chosen, rejected=rejected, margin=MARGIN)

    def centred(chosen, rejected):
        return centring(chosen=chosen, rejected=rejected, coefficient=0.25)

    for loss in (plain, with_margin, centred):
        assert torch.autograd.gradcheck(loss, scores)


def test_margin_is_a_constant():
    margin = MARGIN.clone().requires_grad_()
    assert not bradley_terry(chosen=CHOSEN, rejected=REJECTED, margin=margin).requires_grad


def test_large_differences_stay_finite():
    chosen = torch.tensor([1000.0, -1000.0], requires_grad=True)
    loss = bradley_terry(chosen=chosen, rejected=torch.zeros(2))
    loss.sum().backward()
    assert loss.tolist() == [0.0, 1000.0] and chosen.grad.tolist() == [0.0, -1.0]


def test_half_precision_is_computed_in_float32():
    scores = {"chosen": CHOSEN.bfloat16(), "rejected": torch.tensor([0.3, 0.7, 2.1]).bfloat16()}
    exact = {name: values.float() for name, values in scores.items()}
    assert torch.equal(bradley_terry(**scores), bradley_terry(**exact))
    assert torch.equal(centring(**scores, coefficient=0.1), centring(**exact, coefficient=0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": REJECTED[:2]}, r"chosen \[3\], rejected \[2\]"),
        ({"rejected": REJECTED[:, None]}, r"rejected \[3, 1\]; .* need .squeeze\(-1\)"),
        ({"chosen": CHOSEN[:, None], "rejected": REJECTED[:, None]}, r"chosen \[3, 1\]"),
        ({"margin": torch.tensor(0.5)}, r"margin \[\]"),
    ],
)
def test_anything_but_one_number_a_pair_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        bradley_terry(**({"chosen": CHOSEN, "rejected": REJECTED} | change))


def test_bad_centring_is_refused():
    with pytest.raises(ValueError, match=r"coefficient=-0.1 .* pass 0 for no centring"):
        centring(chosen=CHOSEN, rejected=REJECTED, coefficient=-0.1)
    with pytest.raises(ValueError, match=r"rejected \[2\]"):
        centring(chosen=CHOSEN, rejected=REJECTED[:2], coefficient=0.1)


@pytest.fixture(scope="module")
def scorer_folder(tmp_path_factory):
    return preference_peer.save_tiny_scorer(tmp_path_factory.mktemp("tiny") / "scorer")


def scores(scorer, prompts, completions):
    """[N]: the head on the hidden state of the last token, each sequence alone, no padding."""
    ids = [torch.tensor([prompt + own]) for prompt, own in zip(prompts, completions, strict=True)]
    hidden = [scorer.model(input_ids=sequence).last_hidden_state[0, -1] for sequence in ids]
    return scorer.score(torch.stack(hidden)).squeeze(-1)


@pytest.mark.parametrize("coefficient", [None, 0.3])
@pytest.mark.parametrize("margins", [False, True])
def test_loss_and_gradient_equal_trl(margins, coefficient, scorer_folder, tmp_path):
    trainer = preference_peer.reward_trainer(
        scorer_folder, tmp_path, center_rewards_coefficient=coefficient
    )
    pairs = preference_peer.make_pairs(6, margins=margins, seed=3)
    expected, expected_gradient = preference_peer.reward(trainer, pairs)

    prompts = [pair.prompt for pair in pairs]
    pair_scores = {
        "chosen": scores(trainer.model, prompts, [pair.chosen for pair in pairs]),
        "rejected": scores(trainer.model, prompts, [pair.rejected for pair in pairs]),
    }
    margin = torch.tensor([pair.margin for pair in pairs]) if margins else None
    losses = bradley_terry(**pair_scores, margin=margin)
    if coefficient is not None:
        losses = losses + centring(**pair_scores, coefficient=coefficient)
    trainer.model.zero_grad()
    losses.mean().backward()
    gradient = trl_peer.gradient(trainer.model)

    difference = pair_scores["chosen"] - pair_scores["rejected"]
    assert difference.abs().max() > 0.1 and 0 < (difference > 0).sum() < len(pairs)
    assert losses.mean().item() == pytest.approx(expected, rel=1e-5)
    assert trl_peer.relative_distance(gradient, expected_gradient) < 1e-5


def test_saved_scorer_loads_unaided(scorer_folder):
    scorer = AutoModelForSequenceClassification.from_pretrained(scorer_folder)
    padded = torch.tensor([[5, 6, 7, trl_peer.PAD, trl_peer.PAD], [8, 9, 5, 4, 3]])
    with torch.no_grad():
        logits = scorer(input_ids=padded).logits
        alone = scores(scorer, [[5, 6], [8, 9]], [[7], [5, 4, 3]])
    assert logits.shape == (2, 1)
    torch.testing.assert_close(logits[:, 0], alone, rtol=1e-5, atol=1e-6)
