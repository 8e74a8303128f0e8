"""The two tasks from a seeded start, how each is judged, and what PPO solves them with."""

import torch
from control.agents import Critic, DiscretePolicy, GaussianPolicy, Policy
from control.environments import Environments, mean_return

SEED = 0
EVALUATION_SEED = 1000  # environment i of a row is seeded with this plus i: none seen in training

PPO_CARTPOLE = {
    "updates": 80,
    "steps": 128,
    "epochs": 4,
    "minibatch": 256,
    "learning_rate": 3e-3,
    "gamma": 0.98,
    "lam": 0.95,
    "epsilon": 0.2,
    "entropy_coefficient": 0.01,
    "reward_scale": 0.1,
}
PPO_PENDULUM = PPO_CARTPOLE | {
    "updates": 100,
    "steps": 200,
    "epochs": 10,
    "minibatch": 400,
    "gamma": 0.9,
    "entropy_coefficient": 0.0,
}


def cartpole(
    *, count: int, max_episode_steps: int | None = None
) -> tuple[Environments, DiscretePolicy, Critic]:
    torch.manual_seed(SEED)
    environments = Environments(
        "CartPole-v1", count=count, seed=SEED, max_episode_steps=max_episode_steps
    )
    return environments, DiscretePolicy(observation_size=4, actions=2), Critic(observation_size=4)


def pendulum() -> tuple[Environments, GaussianPolicy, Critic]:
    torch.manual_seed(SEED)
    environments = Environments("Pendulum-v1", count=8, seed=SEED)
    policy = GaussianPolicy(observation_size=3, action_size=1)
    return environments, policy, Critic(observation_size=3)


def greedy_return(environments: Environments, policy: Policy) -> float:
    """Mean over 20 greedy episodes, with the environment's own time limit."""
    name = environments.name
    return mean_return(name, policy.greedy, episodes=20, seed=EVALUATION_SEED)
