"""What a stage and the loop hand each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from align.packing import Pack


@dataclass(kw_only=True)
class Batch:
    """What one step trains on: minibatches of packs, this process's share of each.

    columns: names of the packs' columns. metrics: figures of the collection, equal on all ranks.
    samples: this process's rows for samples.jsonl. passes: how often the minibatches are gone
    through. unit: the metric of `loss` that counts what its others are means over. held: parts of
    the parameters, by the name that their norm is logged under, that these updates leave alone.
    """

    minibatches: list[list[Pack]]
    columns: tuple[str, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    passes: int = 1
    unit: str = "tokens"
    held: tuple[str, ...] = ()


class Stage(Protocol):
    """What the loop drives; see `align.stages` for the real ones."""

    steps: int
    """Steps of the whole run."""
    optimizer_steps: int
    """Optimizer steps a step, at most: the learning-rate schedule counts them."""

    def collect(self, step: int) -> Batch: ...

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]: ...

    def state(self) -> dict[str, Any]:
        """Plain values that the next `collect` depends on."""

    def load_state(self, state: dict[str, Any]) -> None: ...

    def learned(self, metrics: dict[str, float]) -> None:
        """Called after a step's last update with its metrics, equal on all ranks; `state` is asked
        afterwards.
        """

    def close(self) -> None:
        """Give back what the stage holds besides the trained module."""
