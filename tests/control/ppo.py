"""PPO (Schulman 2017, 1707.06347): several passes over a rollout while the ratio stays near 1."""

import torch
from control.agents import Critic, Policy
from control.environments import Environments
from control.learner import Learner

from align.objectives.advantage import gae, reinforce_plus_plus
from align.objectives.entropy import entropy_bonus
from align.objectives.policy import clipped_surrogate, token_log_ratio
from align.objectives.value import value_loss


def ppo(
    environments: Environments,
    policy: Policy,
    critic: Critic,
    *,
    updates: int,
    steps: int,
    epochs: int,
    minibatch: int,
    learning_rate: float,
    gamma: float,
    lam: float,
    epsilon: float,
    entropy_coefficient: float,
    reward_scale: float,
) -> None:
    """steps: in each environment, before every update; minibatch counts steps too."""
    learner = Learner(policy, critic, learning_rate=learning_rate, updates=updates)
    for _ in range(updates):
        rollout = environments.play(policy.sample, steps=steps)
        with torch.no_grad():
            old, _ = policy.evaluate(rollout.observations, rollout.actions)
            values = critic(rollout.observations)
            next_values = critic(rollout.next_observations)
        advantage = gae(
            rewards=rollout.rewards * reward_scale,
            values=values,
            next_values=next_values,
            terminated=rollout.terminated,
            truncated=rollout.truncated,
            gamma=gamma,
            lam=lam,
        )
        returns = advantage + values
        advantage = reinforce_plus_plus(advantage)
        for _ in range(epochs):
            for picked in torch.randperm(returns.numel()).split(minibatch):
                rows = (picked // steps, picked % steps)  # environment, time
                observations = rollout.observations[rows]
                log_prob, entropy = policy.evaluate(observations, rollout.actions[rows])
                surrogate = clipped_surrogate(
                    token_log_ratio(policy=log_prob, old=old[rows]),
                    advantage=advantage[rows],
                    epsilon_low=epsilon,
                    epsilon_high=epsilon,
                )
                critic_loss = value_loss(critic(observations), returns=returns[rows])
                bonus = entropy_bonus(entropy, coefficient=entropy_coefficient)
                learner.step(surrogate + critic_loss + bonus)
        learner.end_update()
