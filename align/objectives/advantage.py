"""How much better a completion, or an action, was than expected.

Two families. Over completions: rewards [P, G] (P prompts, G completions each) give one number a
completion; NaN marks a reward that does not apply. It stays out of every mean and deviation, and
its advantage is 0, as in TRL 1.16. Over time: rewards [..., T] give one number a step, the time
axis last.

Deviations are sample deviations (divided by n - 1), and epsilon is added to the deviation: 1e-4,
TRL's value. Departs from TRL in one point: where all completions of a prompt earned the same, the
advantage is exactly 0. TRL divides the rounding error of the mean by epsilon there (6e-4 for seven
rewards of 0.7), and a completion that should be skipped gets a gradient.

Nothing here is differentiable: to the policy an advantage is a constant.
"""

from typing import Literal

import torch
from torch import Tensor

from align.objectives.reduce import at_least_float32

EPSILON = 1e-4
Scale = Literal["group", "batch", "none"]


@torch.no_grad()
def group_advantage(rewards: Tensor, *, scale: Scale = "group", epsilon: float = EPSILON) -> Tensor:
    """Reward minus the mean of its prompt's completions, scaled, [P, G] (GRPO, 2402.03300).

    rewards: [P, G], NaN where missing. The whole batch of all ranks where scale is "batch".
    scale: "group" divides by the deviation within the prompt, "batch" by that of all rewards,
        "none" not at all (Dr. GRPO, 2503.20783: dividing favours prompts that are nearly always or
        never solved).

    Raises ValueError for rewards that are not [P, G] or an unknown scale.
    """
    rewards = _groups(rewards)
    centred = rewards - rewards.nanmean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (_deviation(rewards, dim=1) + epsilon)
    elif scale == "batch":
        centred = centred / (_deviation(rewards.flatten(), dim=0) + epsilon)
    elif scale != "none":
        raise ValueError(f"unknown scale {scale!r}; choose group, batch or none")
    return _zero_where_nothing_to_learn(centred, rewards)


@torch.no_grad()
def leave_one_out(rewards: Tensor) -> Tensor:
    """Reward minus the mean of the *other* completions of its prompt, [P, G] (RLOO, 2402.14740).

    The baseline does not contain the reward it is subtracted from, so it does not bias the
    gradient.
    rewards: [P, G], NaN where missing; a completion without a scored sibling gets 0. Raises
    ValueError for rewards that are not [P, G].
    """
    rewards = _groups(rewards)
    scored = (~rewards.isnan()).sum(dim=1, keepdim=True)
    others = rewards.nansum(dim=1, keepdim=True) - rewards
    return _zero_where_nothing_to_learn(rewards - others / (scored - 1), rewards)


@torch.no_grad()
def reinforce_plus_plus(rewards: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """Reward minus the mean of the whole batch, divided by its deviation, same shape (2501.03262).

    Any shape; NaN where missing. Over all ranks' rewards, gathered first. It also normalises the
    advantages of PPO: the mean is subtracted for good, not added back.
    """
    rewards = at_least_float32(rewards)
    flat = rewards.flatten()
    centred = (flat - flat.nanmean()) / (_deviation(flat, dim=0) + epsilon)
    return _zero_where_nothing_to_learn(centred[None], flat[None])[0].view_as(rewards)


def state_value(*, action_values: Tensor, policy: Tensor) -> Tensor:
    """V = sum over actions of policy * Q, [...]. action_values, policy (not its logs): [..., V]."""
    return (at_least_float32(action_values) * at_least_float32(policy)).sum(-1).detach()


def action_advantage(*, action_values: Tensor, policy: Tensor) -> Tensor:
    """A = Q - V, [..., V]: how much better each action is than the policy's average one."""
    value = state_value(action_values=action_values, policy=policy)
    return at_least_float32(action_values).detach() - value.unsqueeze(-1)


def subtract_baseline(returns: Tensor, *, baseline: Tensor) -> Tensor:
    """Return minus its prediction, same shape: a lower variance and the same expected gradient."""
    return (at_least_float32(returns) - at_least_float32(baseline)).detach()


@torch.no_grad()
def reward_to_go(rewards: Tensor, *, gamma: float, ended: Tensor | None = None) -> Tensor:
    """G_t = r_t + gamma * G_(t+1), same shape (Williams 1992); G_0 is the episode's return.

    rewards: [..., T]. ended: [..., T] bool, true on the last step of an episode where several
        follow one another.
    """
    rewards = at_least_float32(rewards)
    return _discounted_sum(rewards, torch.full_like(rewards, gamma), ended)


def td_error(
    *, rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, gamma: float
) -> Tensor:
    """r_t + gamma * V(s_(t+1)) * (1 - terminated) - V(s_t), all [..., T].

    next_values: the value of the state each step led to, also on the last step of an episode cut
        off by a time limit: a *truncated* episode would have gone on, so it still counts what was
        to come. In an environment that resets itself this is the state before the reset.
    terminated: bool, true where the episode came to its natural end and nothing follows.
    """
    # Not a product with 0: what is recorded after the end may be anything, not-a-number included.
    to_come = torch.where(terminated.bool(), 0.0, gamma * at_least_float32(next_values))
    return (at_least_float32(rewards) + to_come - at_least_float32(values)).detach()


@torch.no_grad()
def gae(
    *,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimate, sum of (gamma * lam)^l * delta_(t+l), [..., T] (Schulman
    2016, eq. 16).

    The sum stops where an episode ends, terminated or truncated; only the terminated one has no
    value to come (see `td_error`, whose arguments these are). lam=0 gives the TD error, lam=1 the
    reward-to-go minus the value. The critic's target is the result plus `values`.
    """
    delta = td_error(
        rewards=rewards, values=values, next_values=next_values, terminated=terminated, gamma=gamma
    )
    ended = terminated.bool() | truncated.bool()
    return _discounted_sum(delta, torch.full_like(delta, gamma * lam), ended)


def _discounted_sum(terms: Tensor, factor: Tensor, ended: Tensor | None) -> Tensor:
    """s_t = terms_t + factor_t * s_(t+1), with the sum cut after each step where `ended`."""
    if ended is not None:
        factor = factor * ~ended.bool()
    total = torch.zeros_like(terms[..., 0])
    sums = []
    for step in range(terms.shape[-1] - 1, -1, -1):
        total = terms[..., step] + factor[..., step] * total
        sums.append(total)
    return torch.stack(sums[::-1], dim=-1)


def _groups(rewards: Tensor) -> Tensor:
    if rewards.dim() != 2:
        raise ValueError(
            f"rewards must be [prompts, completions of each], got shape {list(rewards.shape)}; "
            "use rewards.view(prompts, -1)"
        )
    return at_least_float32(rewards)


def _deviation(rewards: Tensor, *, dim: int) -> Tensor:
    """Sample standard deviation without the NaNs, axis kept; NaN where fewer than two are left."""
    scored = (~rewards.isnan()).sum(dim, keepdim=True)
    squares = (rewards - rewards.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (scored - 1)).sqrt()


def _zero_where_nothing_to_learn(advantage: Tensor, rewards: Tensor) -> Tensor:
    """0 where the reward is missing, and exactly 0 in a row whose rewards are all the same."""
    missing = rewards.isnan()
    highest = rewards.masked_fill(missing, -torch.inf).amax(1, keepdim=True)
    lowest = rewards.masked_fill(missing, torch.inf).amin(1, keepdim=True)
    return torch.where(missing | (highest <= lowest), 0.0, advantage)
