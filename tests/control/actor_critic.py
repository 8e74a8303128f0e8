"""Actor-critic (Sutton & Barto, 13.5): the TD error of one step is the advantage, and what moves
the critic. Nothing waits for the end of an episode."""

import torch
from control.agents import Critic, Policy
from control.environments import Environments
from control.learner import Learner
from control.policy_gradient import policy_gradient

from align.objectives.advantage import td_error
from align.objectives.value import value_loss


def actor_critic(
    environments: Environments,
    policy: Policy,
    critic: Critic,
    *,
    updates: int,
    steps: int,
    learning_rate: float,
    critic_learning_rate: float,
    gamma: float,
    reward_scale: float,
) -> None:
    """steps: in each environment, before every update."""
    actor = Learner(policy, learning_rate=learning_rate, updates=updates)
    valuer = Learner(critic, learning_rate=critic_learning_rate, updates=updates)
    for _ in range(updates):
        rollout = environments.play(policy.sample, steps=steps)
        values = critic(rollout.observations)
        with torch.no_grad():
            next_values = critic(rollout.next_observations)
        # Truncated steps are among those that keep their next value: see `environments`.
        advantage = td_error(
            rewards=rollout.rewards * reward_scale,
            values=values,
            next_values=next_values,
            terminated=rollout.terminated,
            gamma=gamma,
        )
        log_prob, _ = policy.evaluate(rollout.observations, rollout.actions)
        actor.step(policy_gradient(log_prob, advantage=advantage))
        valuer.step(value_loss(values, returns=advantage + values))
        actor.end_update()
        valuer.end_update()
