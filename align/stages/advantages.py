"""A rollout's rewards a token, advantages and returns, from what stands in its packs' columns.

Columns read: old, reference (log-probs), value, score (of the completion); set: advantage, return.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from align.objectives.advantage import gae
from align.objectives.kl import k1
from align.packing import Pack
from align.stages.context import Context


def set_advantages(pack: Pack, *, beta: float, gamma: float, lam: float) -> None:
    """GAE over each completion's tokens; the return is what the critic should have said.

    A token's reward is -beta * k1, and the score besides on the completion's last token, after
    which nothing is expected.
    """
    columns, lengths = pack.columns, pack.lengths()
    last = lengths.cumsum(0) - 1
    rewards = -beta * k1(policy=columns["old"], reference=columns["reference"])
    rewards = rewards.index_add(0, last, columns["score"].index_select(0, last))
    ended = torch.zeros_like(rewards).index_fill(0, last, 1.0)
    rewards, values, ended = (_rows(x, lengths) for x in (rewards, columns["value"], ended))
    advantage = gae(
        rewards=rewards,
        values=values,
        next_values=torch.nn.functional.pad(values[:, 1:], (0, 1)),
        terminated=ended.bool(),
        truncated=torch.zeros_like(ended, dtype=torch.bool),
        gamma=gamma,
        lam=lam,
    )
    inside = torch.arange(advantage.shape[1], device=lengths.device) < lengths[:, None]
    columns["advantage"] = advantage[inside]
    columns["return"] = columns["advantage"] + columns["value"]


def whiten(packs: Sequence[Pack], context: Context) -> None:
    """Advantages to mean 0 and deviation 1 over all processes' tokens."""
    found = [one.columns["advantage"].double() for one in packs]
    count, total = context.total(sum(len(x) for x in found), sum(float(x.sum()) for x in found))
    mean = total / count
    (squares,) = context.total(sum(float((x - mean).square().sum()) for x in found))
    deviation = (squares / max(count - 1, 1)) ** 0.5
    for one, values in zip(packs, found, strict=True):
        one.columns["advantage"] = ((values - mean) / (deviation + 1e-8)).float()


def critic_figures(packs: Sequence[Pack], context: Context) -> dict[str, float]:
    """KL to the reference, what the critic said and what came, over all processes."""
    kl = value = returns = squares = wrong = 0.0
    for one in packs:
        columns = one.columns
        kl += float(k1(policy=columns["old"], reference=columns["reference"]).sum())
        value += float(columns["value"].double().sum())
        returns += float(columns["return"].double().sum())
        squares += float(columns["return"].double().square().sum())
        wrong += float((columns["return"] - columns["value"]).double().square().sum())
    kl, value, returns, squares, wrong, tokens, sequences = context.total(
        kl,
        value,
        returns,
        squares,
        wrong,
        sum(len(one.target) for one in packs),
        sum(one.sequences for one in packs),
    )
    spread = squares - returns**2 / tokens
    left = wrong - (returns - value) ** 2 / tokens  # a constant error is no part of the variance
    return {
        "kl": kl / tokens,
        "kl/sequence": kl / sequences,
        "value": value / tokens,
        "return": returns / tokens,
        "explained_variance": 1 - left / spread if spread > 0 else 0.0,
    }


def _rows(values: Tensor, lengths: Tensor) -> Tensor:
    """[C] to [N, longest], 0 behind the end."""
    split = values.split(lengths.tolist())
    return torch.nn.utils.rnn.pad_sequence(list(split), batch_first=True)
