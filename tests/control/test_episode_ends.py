"""Terminated and truncated: by hand, in the rollout, and in what a critic learns from it."""

import pytest
import torch

pytest.importorskip("gymnasium", reason="gymnasium is not installed (pip install gymnasium)")

import control.ppo
from control.ppo import ppo
from control.tasks import PPO_CARTPOLE, cartpole

from align.objectives.advantage import gae


def test_gae_by_hand_and_with_the_two_ends_swapped():
    """Two episodes of three steps: the first terminated, the second truncated.

    gamma = lam = 1/2, rewards 1, values and next values 4. The error of a step that goes on, or is
    truncated, is 1 + 2 - 4 = -1, and that of a terminated one 1 - 4 = -3. The weight of a later
    error is 1/4 a step, and the sum stops at an end:

        first     -1 - 1/4 - 3/16 = -1.4375    -1 - 3/4 = -1.75    -3
        second    -1 - 1/4 - 1/16 = -1.3125    -1 - 1/4 = -1.25    -1

    With the flags swapped the episodes change places.
    """
    last = torch.arange(6)
    terminated, truncated = last == 2, last == 5
    fours = torch.full((6,), 4.0)
    known = {"rewards": torch.ones(6), "values": fours, "next_values": fours}
    known |= {"gamma": 0.5, "lam": 0.5}
    first, second = [-1.4375, -1.75, -3.0], [-1.3125, -1.25, -1.0]
    right = gae(**known, terminated=terminated, truncated=truncated)
    assert right.tolist() == first + second
    swapped = gae(**known, terminated=truncated, truncated=terminated)
    assert swapped.tolist() == second + first


def test_a_step_leads_to_the_state_before_the_reset():
    """CartPole under a limit of 12 steps: a cart pushed right throughout drops its pole before
    that (|angle| > 0.2095 rad ends the episode), one that follows its pole stands until the limit.
    A reset puts every number within 0.05."""
    environments, _, _ = cartpole(count=6, max_episode_steps=12)
    careless = torch.tensor([True, True, True, False, False, False])

    def act(observations):
        leaning_right = observations[:, 2] + observations[:, 3] > 0
        return (careless | leaning_right).long()

    rollout = environments.play(act, steps=40)
    assert (rollout.terminated.sum(dim=1)[careless] >= 3).all()
    assert not rollout.terminated[~careless].any()
    assert rollout.truncated.sum(dim=1).tolist() == [0, 0, 0, 3, 3, 3]
    assert (rollout.next_observations[rollout.terminated][:, 2].abs() > 0.2095).all()
    led_to, then = rollout.next_observations[:, :-1], rollout.observations[:, 1:]
    ended = rollout.ended[:, :-1]
    assert torch.equal(led_to[~ended], then[~ended])
    assert (then[ended].abs() <= 0.05).all()
    # The cart moves by its speed times 0.02 s at every step, the last of an episode included.
    moved = rollout.next_observations[..., 0] - rollout.observations[..., 0]
    torch.testing.assert_close(moved, 0.02 * rollout.observations[..., 1], rtol=0, atol=1e-6)


def upright_value_under_a_short_limit():
    """What PPO's critic says of the upright pole after episodes of at most 20 steps."""
    environments, policy, critic = cartpole(count=8, max_episode_steps=20)
    ppo(environments, policy, critic, **PPO_CARTPOLE | {"updates": 40})
    return critic(torch.zeros(4)).item()


def test_a_truncated_episode_would_have_gone_on():
    """A pole that is held up earns 0.1 a step for good, 0.1 / (1 - 0.98) = 5, whatever the
    limit."""
    assert upright_value_under_a_short_limit() == pytest.approx(5.0, abs=0.25)


def truncated_as_terminated(*, terminated, truncated, **known):
    return gae(terminated=terminated | truncated, truncated=truncated, **known)


def ends_swapped(*, terminated, truncated, **known):
    return gae(terminated=truncated, truncated=terminated, **known)


@pytest.mark.parametrize("mistake", [truncated_as_terminated, ends_swapped])
def test_control_a_limit_taken_for_an_end_loses_what_was_to_come(monkeypatch, mistake):
    """Twenty steps are worth 0.1 * (1 - 0.98^20) / (1 - 0.98) = 1.66, and fewer are left later."""
    monkeypatch.setattr(control.ppo, "gae", mistake)
    assert 0.5 < upright_value_under_a_short_limit() < 1.66
