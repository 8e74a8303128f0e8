"""REINFORCE (Williams 1992): whole episodes, and every action is as good as what came after it.

The rewards-to-go of the batch are centred and scaled (without that CartPole, whose rewards are all
positive, needs more episodes); nothing is learned but the policy. There is no critic to say what a
truncated episode would still have earned, so it counts as what it was.
"""

from control.agents import Policy
from control.environments import Environments
from control.learner import Learner
from control.policy_gradient import policy_gradient

from align.objectives.advantage import reinforce_plus_plus, reward_to_go


def reinforce(
    environments: Environments,
    policy: Policy,
    *,
    updates: int,
    learning_rate: float,
    gamma: float,
) -> None:
    learner = Learner(policy, learning_rate=learning_rate, updates=updates)
    for _ in range(updates):
        rollout, inside = environments.play_episodes(policy.sample)
        returns = reward_to_go(rollout.rewards, gamma=gamma, ended=rollout.ended)[inside]
        log_prob, _ = policy.evaluate(rollout.observations[inside], rollout.actions[inside])
        learner.step(policy_gradient(log_prob, advantage=reinforce_plus_plus(returns)))
        learner.end_update()
