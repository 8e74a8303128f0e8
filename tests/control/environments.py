"""Rows of Gymnasium environments that reset themselves, and what was seen in them.

Same-step autoreset: the observation that comes back from the last step of an episode is the first
of the next one, and the state that step led to is `final_obs` in the info. A *truncated* episode
(a time limit: CartPole's 500 steps, Pendulum's 200) would have gone on from there, so its critic
reads `final_obs`; one that *terminated* (the pole fell) reads nothing. `next_observations` holds
the state each step led to, never the one after a reset, and the two kinds of end stay apart.
(Gymnasium's default, next-step autoreset, puts a step without meaning after every episode.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

Act = Callable[[Tensor], Tensor]  # observations [E, O] -> actions [E] or [E, A]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """E environments, T steps: observations and next_observations [E, T, O], actions [E, T] or
    [E, T, A], rewards [E, T], terminated and truncated [E, T] bool."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminated: Tensor
    truncated: Tensor

    @property
    def ended(self) -> Tensor:
        return self.terminated | self.truncated


class Environments:
    """`count` environments side by side; every `play` goes on where the last one stopped."""

    def __init__(
        self, name: str, *, count: int, seed: int, max_episode_steps: int | None = None
    ) -> None:
        """max_episode_steps: a time limit of one's own; None for the environment's."""
        self.name = name
        self.vector = gymnasium.make_vec(
            name,
            num_envs=count,
            vectorization_mode="sync",
            max_episode_steps=max_episode_steps,
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        )
        self.observation = self.vector.reset(seed=seed)[0]

    def play(self, act: Act, *, steps: int) -> Rollout:
        return _stack([self._step(act) for _ in range(steps)])

    def play_episodes(self, act: Act) -> tuple[Rollout, Tensor]:
        """One whole episode in each environment from a fresh start, and which steps belong to it,
        [E, T] bool: environments that are through early go on with steps that do not count."""
        self.observation = self.vector.reset()[0]
        steps, playing, inside = [], np.ones(self.vector.num_envs, dtype=bool), []
        while playing.any():
            inside.append(torch.from_numpy(playing))
            steps.append(self._step(act))
            playing = playing & ~steps[-1]["terminated"] & ~steps[-1]["truncated"]
        return _stack(steps), torch.stack(inside, dim=1)

    @torch.no_grad()
    def _step(self, act: Act) -> dict[str, np.ndarray]:
        actions = act(torch.from_numpy(self.observation)).numpy()
        led_to, rewards, terminated, truncated, info = self.vector.step(actions)
        transition = {
            "observations": self.observation,
            "actions": actions,
            "rewards": rewards.astype(np.float32),
            "next_observations": led_to.copy(),
            "terminated": terminated,
            "truncated": truncated,
        }
        for row in np.flatnonzero(terminated | truncated):
            transition["next_observations"][row] = info["final_obs"][row]
        self.observation = led_to
        return transition


def mean_return(name: str, act: Act, *, episodes: int, seed: int) -> float:
    """Undiscounted return of an episode, the mean over `episodes` of them with seeds of their
    own."""
    environments = Environments(name, count=episodes, seed=seed)
    rollout, inside = environments.play_episodes(act)
    return (rollout.rewards * inside).sum(dim=1).mean().item()


def _stack(steps: list[dict[str, np.ndarray]]) -> Rollout:
    columns = {key: torch.from_numpy(np.stack([s[key] for s in steps], axis=1)) for key in steps[0]}
    return Rollout(**columns)
