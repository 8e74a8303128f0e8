"""Stages that pass over a data set: SFT, reward model, DPO and its kin, KTO."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from align.config.parts import Optim, Training, require


@dataclass(frozen=True, kw_only=True)
class Passes(Training):
    """Epochs over rows, so many an optimizer step."""

    epochs: float = 1.0
    batch: int = 32
    """Rows (sequences, pairs) an optimizer step, over all processes."""
    max_tokens: int = 4096
    """A row with a longer sequence is dropped, and counted, before the first step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch > 0, "batch", self.batch, "at least 1")
        finite = 0 < self.epochs < math.inf
        require(finite, "epochs", self.epochs, "above 0, and a number")
        require(self.max_tokens > 1, "max-tokens", self.max_tokens, "at least 2")


@dataclass(frozen=True, kw_only=True)
class Sft(Passes):
    """Supervised fine-tuning: cross-entropy on the completion's tokens, end token included."""

    kind: ClassVar[str] = "sft"

    name: str = "sft"
    optim: Optim = field(default_factory=lambda: Optim(lr=2e-5, schedule="cosine", warmup=0.05))


@dataclass(frozen=True, kw_only=True)
class RewardModel(Passes):
    """Reward model: Bradley-Terry (arXiv 2009.01325) on pairs, one score a sequence."""

    kind: ClassVar[str] = "reward_model"
    writes: ClassVar[Literal["policy", "scorer", "data"]] = "scorer"

    name: str = "reward_model"
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-5, schedule="linear", warmup=0.05))
    batch: int = 64
    max_tokens: int = 2048
    center: float = 0.0
    """Weight of (chosen + rejected)^2, which holds the scores around 0 (arXiv 2312.09244)."""
    margin: bool = False
    """Subtract the data's column `margin` from the difference of scores (Llama 2, 2307.09288)."""
    holdout: float = 0.05
    """Share of the pairs kept out of training, for the accuracy that is reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.center >= 0, "center", self.center, "at least 0")
        require(0 <= self.holdout < 1, "holdout", self.holdout, "a share below 1")


@dataclass(frozen=True, kw_only=True)
class Dpo(Passes):
    """Direct preference optimisation (arXiv 2305.18290), IPO (2310.12036), hinge (2305.10425)."""

    kind: ClassVar[str] = "dpo"
    rows_kind: ClassVar[str] = "preference"

    name: str = "dpo"
    optim: Optim = field(default_factory=lambda: Optim(lr=5e-7, schedule="linear", warmup=0.1))
    batch: int = 64
    max_tokens: int = 2048
    loss_type: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """sigmoid is DPO's own; ipo averages log-ratios over tokens, its beta is the paper's tau."""
    beta: float = 0.1
    """How strongly the policy is held to the reference, which is the stage's input model."""
    label_smoothing: float = 0.0
    """sigmoid: share of the labels taken to be wrong (conservative DPO)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, "beta", self.beta, "above 0")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 0.5, "label-smoothing", smoothing, "at least 0 and below 0.5")
        alone = self.loss_type == "sigmoid" or not smoothing
        require(alone, "label-smoothing", smoothing, "0 where --loss-type is not sigmoid")


@dataclass(frozen=True, kw_only=True)
class Kto(Passes):
    """KTO (arXiv 2402.01306): completions labelled good or bad, without pairs."""

    kind: ClassVar[str] = "kto"

    name: str = "kto"
    optim: Optim = field(default_factory=lambda: Optim(lr=5e-7, schedule="linear", warmup=0.1))
    batch: int = 64
    max_tokens: int = 2048
    beta: float = 0.1
    """How strongly the policy is held to the reference, which is the stage's input model."""
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    """Weights of the two labels; the paper wants weight x count within a factor 4/3 of equal."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, "beta", self.beta, "above 0")
        require(self.batch > 1, "batch", self.batch, "at least 2: the reference point is taken "
                "from each prompt with another row's completion")  # fmt: skip
        for name in ("desirable_weight", "undesirable_weight"):
            value = getattr(self, name)
            require(value >= 0, name.replace("_", "-"), value, "at least 0")
