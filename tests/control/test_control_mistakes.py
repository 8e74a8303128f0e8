"""Controls: with a mistake in one objective, the training of `test_control` fails."""

import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed (pip install gymnasium)")

import control.policy_gradient
import control.ppo
from control.ppo import ppo
from control.reinforce import reinforce
from control.tasks import PPO_CARTPOLE, PPO_PENDULUM, cartpole, greedy_return, pendulum

from align.objectives.advantage import gae
from align.objectives.policy import cispo, clipped_surrogate


def ends_swapped(*, terminated, truncated, **known):
    return gae(terminated=truncated, truncated=terminated, **known)


def clipped_wrong_sign(log_ratio, *, advantage, **bounds):
    return clipped_surrogate(log_ratio, advantage=-advantage, **bounds)


def cispo_wrong_sign(log_ratio, *, advantage, **others):
    return cispo(log_ratio, advantage=-advantage, **others)


def without_clip(log_ratio, *, advantage, **_):
    return -log_ratio.exp() * advantage


def clip_alone(log_ratio, *, advantage, epsilon_low, epsilon_high):
    """Without the minimum a ratio that was pushed out on the bad side never comes back."""
    return -log_ratio.exp().clamp(1 - epsilon_low, 1 + epsilon_high) * advantage


def test_swapped_ends_leave_cartpole_unsolved(monkeypatch):
    """A fallen pole is worth as much as a standing one: nothing to learn."""
    monkeypatch.setattr(control.ppo, "gae", ends_swapped)
    environments, policy, critic = cartpole(count=8)
    ppo(environments, policy, critic, **PPO_CARTPOLE)
    assert greedy_return(environments, policy) < 200


def test_ppo_with_the_wrong_sign_falls_at_once(monkeypatch):
    """A tenth of the updates is enough to see it; nothing falls faster than in 8 or 9 steps."""
    short = PPO_CARTPOLE | {"updates": 10}
    environments, policy, critic = cartpole(count=8)
    ppo(environments, policy, critic, **short)
    assert greedy_return(environments, policy) > 150
    monkeypatch.setattr(control.ppo, "clipped_surrogate", clipped_wrong_sign)
    environments, policy, critic = cartpole(count=8)
    ppo(environments, policy, critic, **short)
    assert greedy_return(environments, policy) < 15


def test_reinforce_with_the_wrong_sign_falls_at_once(monkeypatch):
    monkeypatch.setattr(control.policy_gradient, "cispo", cispo_wrong_sign)
    environments, policy, _ = cartpole(count=16)
    reinforce(environments, policy, updates=80, learning_rate=1e-2, gamma=0.98)
    assert greedy_return(environments, policy) < 15


@pytest.mark.parametrize("mistake", [None, without_clip, clip_alone])
def test_ten_epochs_need_the_clip(monkeypatch, mistake):
    """40 updates are enough with the right clip (about -200), not without (about -1100)."""
    if mistake is not None:
        monkeypatch.setattr(control.ppo, "clipped_surrogate", mistake)
    environments, policy, critic = pendulum()
    ppo(environments, policy, critic, **PPO_PENDULUM | {"updates": 40})
    reached = greedy_return(environments, policy)
    assert reached > -300 if mistake is None else reached < -700
