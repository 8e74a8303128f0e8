"""REINFORCE with a learned baseline (Sutton & Barto, 13.4): what came after an action counts only
as far as it was better than the critic expected of that state. The returns stay Monte Carlo."""

import torch
from control.agents import Critic, Policy
from control.environments import Environments
from control.learner import Learner
from control.policy_gradient import policy_gradient

from align.objectives.advantage import reward_to_go, subtract_baseline
from align.objectives.value import value_loss


def reinforce_baseline(
    environments: Environments,
    policy: Policy,
    critic: Critic,
    *,
    updates: int,
    learning_rate: float,
    gamma: float,
    reward_scale: float,
    critic_steps: int,
) -> None:
    """reward_scale keeps returns near 1; critic_steps: steps of the critic for each of the
    policy."""
    actor = Learner(policy, learning_rate=learning_rate, updates=updates)
    valuer = Learner(critic, learning_rate=learning_rate, updates=updates)
    for _ in range(updates):
        rollout, inside = environments.play_episodes(policy.sample)
        observations = rollout.observations[inside]
        returns = reward_to_go(rollout.rewards * reward_scale, gamma=gamma, ended=rollout.ended)[
            inside
        ]
        with torch.no_grad():
            baseline = critic(observations)
        log_prob, _ = policy.evaluate(observations, rollout.actions[inside])
        advantage = subtract_baseline(returns, baseline=baseline)
        actor.step(policy_gradient(log_prob, advantage=advantage))
        for _ in range(critic_steps):
            valuer.step(value_loss(critic(observations), returns=returns))
        actor.end_update()
        valuer.end_update()
