"""What a stage's two functions have at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from align.modeling.policy import Policy
from align.processes.gather import gathered
from align.processes.sharding import settle


@dataclass(kw_only=True)
class Context:
    """module: as prepared by the accelerator, the one whose forward is differentiated. model_path:
    the stage's input, where the reference comes from, also after a resume. padded: the model takes
    no packs. folder: the stage's own.
    """

    accelerator: Accelerator
    module: nn.Module
    tokenizer: PreTrainedTokenizerBase
    model_path: str
    padded: bool
    folder: Path

    @property
    def unwrapped(self) -> Any:
        """The bare module: a Policy, a Scorer or an ActorCritic."""
        return self.accelerator.unwrap_model(self.module)

    @property
    def policy(self) -> Policy:
        """Of a stage that trains one."""
        return getattr(self.unwrapped, "policy", self.unwrapped)

    @property
    def model(self) -> PreTrainedModel:
        """What the stage exports."""
        return self.unwrapped.model

    def share(self, items: list[Any]) -> list[Any]:
        """This rank's part of what all ranks share out."""
        return items[self.accelerator.process_index :: self.accelerator.num_processes]

    def total(self, *counts: float) -> list[float]:
        """Sums over ranks."""
        settle(self.module)
        local = torch.tensor(counts, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(local, reduction="sum").tolist()

    def gathered(self, items: list[Any]) -> list[Any]:
        """Every rank's items, in rank order."""
        settle(self.module)
        return gathered(items, self.accelerator)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a stage is started: `out` is the run folder, `check` validates and trains nothing,
    `trial` tries a run out before its first step.
    """

    recipe: str
    out: Path
    resume: bool
    check: bool
    report_to: str
    trial: bool = False
