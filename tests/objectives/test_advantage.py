"""Advantages against golden numbers and plain loops."""

import math
import statistics

import pytest
import torch

from align.objectives import advantage

NAN = math.nan


def test_group_advantage_golden_numbers():
    rewards = torch.tensor([[0.1, 1.1, 1.0, 0.1]], dtype=torch.float64)
    result = advantage.group_advantage(rewards)[0]
    expected = [(r - 0.575) / (0.55 + 1e-4) for r in (0.1, 1.1, 1.0, 0.1)]
    assert result.tolist() == pytest.approx(expected, abs=1e-5)
    assert result.sign().tolist() == [-1, 1, 1, -1]


def test_group_scales_are_the_group_the_batch_and_none():
    rows = [[0.0, 1.0, 0.5], [3.0, 1.0, 8.0]]
    rewards = torch.tensor(rows, dtype=torch.float64)
    everything = statistics.stdev(rows[0] + rows[1])
    for scale, deviations in {
        "group": [statistics.stdev(row) + 1e-4 for row in rows],
        "batch": [everything + 1e-4] * 2,
        "none": [1.0, 1.0],
    }.items():
        expected = [
            (r - statistics.mean(row)) / deviation
            for row, deviation in zip(rows, deviations, strict=True)
            for r in row
        ]
        result = advantage.group_advantage(rewards, scale=scale).flatten().tolist()
        assert result == pytest.approx(expected, rel=1e-12), scale


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_give_exactly_zero(scale):
    # 0.7 * 7 / 7 is not 0.7 in float32: without care the rounding error divided by epsilon remains.
    rewards = torch.tensor([[0.7] * 7, [0.1, 0.9, 0.2, 0.3, 0.7, 0.7, 0.7]])
    assert rewards[0].mean() != rewards[0, 0]
    result = advantage.group_advantage(rewards, scale=scale)
    assert result[0].tolist() == [0.0] * 7
    assert (result[1] != 0).all()
    assert advantage.leave_one_out(rewards)[0].tolist() == [0.0] * 7
    assert advantage.reinforce_plus_plus(rewards[0]).tolist() == [0.0] * 7


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_missing_reward_stays_out_and_gets_zero(scale):
    with_gap = torch.tensor([[0.2, NAN, 0.9, 0.4]])
    without = torch.tensor([[0.2, 0.9, 0.4]])
    result = advantage.group_advantage(with_gap, scale=scale)[0]
    assert result[1] == 0
    expected = advantage.group_advantage(without, scale=scale)[0]
    torch.testing.assert_close(result[[0, 2, 3]], expected)


def test_groups_with_one_score_or_none_are_zero():
    rewards = torch.tensor([[NAN, 3.0, NAN], [NAN, NAN, NAN], [0.0, 1.0, 2.0]])
    for result in (
        advantage.group_advantage(rewards),
        advantage.group_advantage(rewards, scale="batch"),
        advantage.leave_one_out(rewards),
    ):
        assert result[:2].tolist() == [[0.0] * 3] * 2
        assert result[2].sign().tolist() == [-1, 0, 1]


def test_leave_one_out_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 6.0], [0.0, NAN, 4.0]])
    expected = [[1 - 8 / 2, 2 - 7 / 2, 6 - 3 / 2], [-4, 0, 4]]
    assert advantage.leave_one_out(rewards).tolist() == expected


def test_reinforce_plus_plus_normalises_the_whole_batch():
    rows = [[0.0, 1.0], [0.5, 3.0]]
    flat = rows[0] + rows[1]
    result = advantage.reinforce_plus_plus(torch.tensor(rows, dtype=torch.float64))
    scale = statistics.stdev(flat) + 1e-4
    assert result.shape == (2, 2)
    expected = [(r - statistics.mean(flat)) / scale for r in flat]
    assert result.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert abs(result.mean()) < 1e-12  # the mean is not added back


def test_reinforce_plus_plus_leaves_missing_rewards_out():
    result = advantage.reinforce_plus_plus(torch.tensor([1.0, NAN, 3.0]))
    assert result.tolist() == pytest.approx([-1 / (2**0.5 + 1e-4), 0, 1 / (2**0.5 + 1e-4)])


def test_wrong_shape_and_scale_are_refused():
    with pytest.raises(ValueError, match=r"\[prompts, completions of each\].*view\(prompts, -1\)"):
        advantage.group_advantage(torch.zeros(8))
    with pytest.raises(ValueError, match=r"\[prompts, completions of each\]"):
        advantage.leave_one_out(torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match=r"'std'.*group, batch or none"):
        advantage.group_advantage(torch.zeros(2, 2), scale="std")


def test_action_advantage_golden_numbers():
    policy, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([10.0, 8.0, 6.0])
    assert advantage.state_value(action_values=q, policy=policy).item() == pytest.approx(8.6)
    result = advantage.action_advantage(action_values=q, policy=policy)
    assert result.tolist() == pytest.approx([1.4, -0.6, -2.6], abs=1e-6)


def test_baseline_golden_variances():
    scores, predictions = torch.tensor([90.0, 40.0, 50.0]), torch.tensor([82.0, 46.0, 49.0])
    rest = advantage.subtract_baseline(scores, baseline=predictions)
    assert scores.var(correction=0).item() == pytest.approx(466.667, abs=5e-4)
    assert rest.var(correction=0).item() == pytest.approx(32.667, abs=5e-4)


def test_reward_to_go_of_two_episodes_in_a_row():
    rewards = torch.tensor([[1.0, 2.0, 3.0, 10.0, 20.0]])
    ended = torch.tensor([[False, False, True, False, True]])
    result = advantage.reward_to_go(rewards, gamma=0.5, ended=ended)
    assert result.tolist() == [[1 + 1 + 0.75, 2 + 1.5, 3, 20, 20]]
    one = advantage.reward_to_go(rewards, gamma=0.5)
    assert one[0, 0].item() == 1 + 1 + 0.75 + 1.25 + 1.25


# Two episodes side by side, six steps; the first is terminated at step 2 and truncated at step 5.
DRAW = torch.Generator().manual_seed(3)
REWARDS = torch.randn(2, 6, generator=DRAW, dtype=torch.float64)
VALUES = torch.randn(2, 6, generator=DRAW, dtype=torch.float64)
NEXT_VALUES = torch.randn(2, 6, generator=DRAW, dtype=torch.float64)
TERMINATED = torch.tensor([[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]).bool()
TRUNCATED = torch.tensor([[0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0]]).bool()
STEPS = {
    "rewards": REWARDS,
    "values": VALUES,
    "next_values": NEXT_VALUES,
    "terminated": TERMINATED,
}


def test_td_error_bootstraps_a_truncated_episode_and_not_a_terminated_one():
    delta = advantage.td_error(**STEPS, gamma=0.9)
    on = REWARDS + 0.9 * NEXT_VALUES - VALUES
    assert delta[0, 2] == REWARDS[0, 2] - VALUES[0, 2]
    assert delta[0, 5] == on[0, 5] and delta[1, 1] == on[1, 1]
    assert torch.equal(delta[~TERMINATED], on[~TERMINATED])


def test_a_value_after_the_end_is_never_read():
    after = NEXT_VALUES.masked_fill(TERMINATED, NAN)
    delta = advantage.td_error(**(STEPS | {"next_values": after}), gamma=0.9)
    assert torch.equal(delta, advantage.td_error(**STEPS, gamma=0.9))


def gae_by_definition(gamma, lam):
    """Sum over l of (gamma lam)^l delta_(t+l), up to the end of the episode, term by term."""
    delta = advantage.td_error(**STEPS, gamma=gamma)
    result = torch.zeros_like(delta)
    for env in range(2):
        for t in range(6):
            for step in range(t, 6):
                result[env, t] += (gamma * lam) ** (step - t) * delta[env, step]
                if TERMINATED[env, step] or TRUNCATED[env, step]:
                    break
    return result


@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.95), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_its_definition(gamma, lam):
    result = advantage.gae(**STEPS, truncated=TRUNCATED, gamma=gamma, lam=lam)
    torch.testing.assert_close(result, gae_by_definition(gamma, lam), rtol=1e-12, atol=1e-14)


def test_gae_with_lambda_0_is_the_td_error():
    result = advantage.gae(**STEPS, truncated=TRUNCATED, gamma=0.9, lam=0.0)
    assert torch.equal(result, advantage.td_error(**STEPS, gamma=0.9))


def test_gae_with_lambda_1_is_the_reward_to_go_minus_the_value():
    # One episode whose next values are the values of the following steps, terminated at its end.
    values = VALUES[:1]
    steps = {
        "rewards": REWARDS[:1],
        "values": values,
        "next_values": values.roll(-1, dims=1),
        "terminated": TERMINATED[1:],
        "truncated": torch.zeros(1, 6, dtype=torch.bool),
    }
    result = advantage.gae(**steps, gamma=0.9, lam=1.0)
    expected = advantage.reward_to_go(REWARDS[:1], gamma=0.9) - values
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


def test_nothing_is_differentiable():
    rewards = torch.rand(2, 6, requires_grad=True)
    values = torch.rand(2, 6, requires_grad=True)
    steps = STEPS | {"values": values, "next_values": values, "rewards": rewards}
    for result in (
        advantage.group_advantage(rewards),
        advantage.leave_one_out(rewards),
        advantage.reinforce_plus_plus(rewards),
        advantage.reward_to_go(rewards, gamma=0.9),
        advantage.td_error(**steps, gamma=0.9),
        advantage.gae(**steps, truncated=TRUNCATED, gamma=0.9, lam=0.9),
        advantage.subtract_baseline(rewards, baseline=values),
        advantage.action_advantage(action_values=rewards, policy=values),
    ):
        assert not result.requires_grad
