"""The order rows are visited in: a fresh shuffle every epoch, a function of the seed alone."""

from __future__ import annotations

from functools import lru_cache

import torch

from align.rollout import seed_of


def at(place: int, rows: int, seed: int) -> int:
    """The row that comes at `place` (0, 1, …) of an endless pass over `rows` rows."""
    epoch, offset = divmod(place, rows)
    return _shuffle(rows, seed, epoch)[offset]


@lru_cache(maxsize=4)
def _shuffle(rows: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    return torch.randperm(rows, generator=generator).tolist()
