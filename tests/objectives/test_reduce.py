"""Reductions: closed forms, and one gradient however the batch is cut."""

import pytest
import torch

from align.objectives import policy, reduce

LENGTHS = torch.tensor([3, 1, 7, 2, 5, 4, 1, 6])
COUNTS = {"sequences": 8, "tokens": int(LENGTHS.sum()), "max_tokens": 9}


def flat(lengths):
    return torch.arange(len(lengths)).repeat_interleave(lengths)


def test_grpo_is_the_mean_of_sequence_means():
    values = torch.randn(29, dtype=torch.float64)
    weights = reduce.token_weights(LENGTHS, "grpo", sequences=8)
    means = torch.stack([part.mean() for part in values.split(LENGTHS.tolist())])
    loss = reduce.weighted_sum(values, weights, sequence=flat(LENGTHS))
    torch.testing.assert_close(loss, means.mean(), rtol=1e-6, atol=0)


def test_bnpo_is_the_mean_over_tokens():
    values = torch.randn(29, dtype=torch.float64)
    weights = reduce.token_weights(LENGTHS, "bnpo", tokens=29)
    loss = reduce.weighted_sum(values, weights, sequence=flat(LENGTHS))
    torch.testing.assert_close(loss, values.mean(), rtol=1e-6, atol=0)


def test_dapo_weighs_every_token_of_the_rollout_alike():
    # Two optimizer steps of 29 and 11 tokens: a step's mean would weigh 1/29 and 1/11.
    tokens = reduce.tokens_per_step(rollout_tokens=40, optimizer_steps=2)
    first = reduce.token_weights(LENGTHS, "dapo", tokens=tokens)
    second = reduce.token_weights(torch.tensor([4, 7]), "dapo", tokens=tokens)
    assert first.tolist() + second.tolist() == pytest.approx([1 / 20] * 10)


def test_dr_grpo_divides_by_the_constant_length():
    weights = reduce.token_weights(LENGTHS, "dr_grpo", sequences=8, max_tokens=9)
    assert weights.tolist() == [pytest.approx(1 / 72)] * 8


@pytest.mark.parametrize("how", ["grpo", "bnpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_gradient_is_the_same_in_1_2_and_5_micro_batches(how, level):
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(6, (29,), generator=draw)
    noise = 0.3 * torch.randn(29, generator=draw, dtype=torch.float64)
    advantage = torch.randn(8, generator=draw)

    def gradient(cuts):
        theta = torch.linspace(-1, 1, 6, dtype=torch.float64, requires_grad=True)
        start = 0
        for part in LENGTHS.split(cuts):
            sequence = flat(part)
            first, last = LENGTHS[:start].sum(), LENGTHS[: start + len(part)].sum()
            log_p = torch.log_softmax(theta, -1)[tokens[first:last]]
            loss = policy.grpo(
                policy=log_p,
                old=log_p.detach() + noise[first:last],
                reference=log_p.detach() - noise[first:last],
                advantage=advantage[start : start + len(part)][sequence],
                sequence=sequence,
                lengths=part,
                level=level,
                beta=0.1,
            ).loss
            weights = reduce.token_weights(part, how, **COUNTS)
            reduce.weighted_sum(loss, weights, sequence=sequence).backward()
            start += len(part)
        return theta.grad

    whole = gradient([8])
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(gradient([3, 5]), whole, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient([1, 2, 1, 3, 1]), whole, rtol=1e-12, atol=1e-14)


def test_sequence_sum_and_mean_with_an_empty_sequence_and_tokens_out_of_order():
    values = torch.tensor([1.0, 10.0, 2.0, 3.0])
    sequence, lengths = torch.tensor([0, 2, 0, 0]), torch.tensor([3, 0, 1])
    where = {"sequence": sequence, "lengths": lengths}
    assert reduce.sequence_sum(values, **where).tolist() == [6.0, 0.0, 10.0]
    assert reduce.sequence_mean(values, **where).tolist() == [2.0, 0.0, 10.0]
    assert torch.isfinite(reduce.token_weights(lengths, "grpo", sequences=3)).all()


def test_half_precision_is_summed_in_float32():
    ones = torch.ones(1000, dtype=torch.bfloat16)  # 1000 is beyond what bfloat16 counts one by one
    one_sequence = {"sequence": torch.zeros(1000, dtype=torch.long)}
    total = reduce.sequence_sum(ones, lengths=torch.tensor([1000]), **one_sequence)
    assert total.dtype == torch.float32 and total.item() == 1000.0
    loss = reduce.weighted_sum(ones, torch.tensor([1.0]), **one_sequence)
    assert loss.dtype == torch.float32 and loss.item() == 1000.0


def test_float64_is_kept():
    assert reduce.at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("how", "counts", "missing"),
    [
        ("grpo", {"tokens": 29}, "sequences"),
        ("bnpo", {"sequences": 8}, "tokens"),
        ("dapo", {"tokens": 0}, "tokens"),
        ("dr_grpo", {"sequences": 8}, "max_tokens"),
    ],
)
def test_a_missing_count_is_named(how, counts, missing):
    with pytest.raises(ValueError, match=f"{how}.*positive {missing}="):
        reduce.token_weights(LENGTHS, how, **counts)


def test_an_unknown_reduction_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'mean'.*grpo, bnpo, dapo, dr_grpo"):
        reduce.token_weights(LENGTHS, "mean", **COUNTS)


def test_a_rollout_needs_an_optimizer_step():
    with pytest.raises(ValueError, match="optimizer_steps"):
        reduce.tokens_per_step(rollout_tokens=10, optimizer_steps=0)
