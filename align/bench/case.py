"""What is measured, as plain values that cross a pipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["update", "step", "dpo", "reward-model", "sft", "scoring", "sync", "start"]
KINDS: tuple[Kind, ...] = (
    "update",
    "dpo",
    "reward-model",
    "sft",
    "scoring",
    "step",
    "sync",
    "start",
)
# How far losses and gradients of both sides may be apart in float32, relative.
EXACT: dict[str, float] = {"update": 1e-5, "dpo": 1e-4, "reward-model": 1e-4, "sft": 1e-4}
LONGEST = 256  # tokens of the longest completion of a group
ENDLESS = 1_000_000  # steps of a run that is held between them and never comes to its end
LR = 1e-7  # moves the weights, and too little to change what is compared


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How TRL is configured where its results do not depend on it."""

    name: str = "defaults"
    micro_batch: int = 8
    """Sequences (pairs, packs) a forward pass."""
    checkpointing: bool = True
    """Gradient checkpointing, which TRL has on by default."""
    generation: str = "generate"
    """step: `generate` of transformers, or `paged`, its continuous batching."""
    packing: bool = True
    """sft: several rows in one sequence."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison. model: a folder. scratch: a folder for what is written meanwhile."""

    kind: Kind
    name: str
    model: str
    scratch: str
    precision: Literal["bf16", "fp32"] = "bf16"
    threads: int = 2
    device: Literal["cpu", "cuda"] = "cpu"
    token_budget: int = 4096
    checkpointing: bool = False
    """Ours computes activations twice, to hold fewer."""
    peer: Settings = field(default_factory=Settings)
    prompt: int = 0
    """update: tokens of the prompt."""
    group: int = 0
    """update, step: completions of a prompt."""
    prompts: int = 1
    """update, step: groups of one optimizer step."""
    rows: str = ""
    """dpo, reward-model, sft: a file of rows; empty takes those of `align.bench.rows`."""
    count: int = 0
    """dpo, reward-model, sft: rows."""
    batch: int = 0
    """dpo, reward-model, sft: rows an optimizer step."""
    data: str = ""
    """step, sync: what the prompts come from, as `--data` names it."""
    words: float = 1.0
    """dpo, reward-model, sft: length of the bench's own rows, as a factor."""
    max_tokens: int = 0
    """step: of a completion; dpo, reward-model, sft: of a sequence."""
    engine: str = "vllm"
    """step, sync: what samples for us."""
    trial: bool = False
    """step: TRL samples once and trains on that again and again, so that its settings of the
    training are not told apart by the luck of the draw."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(plain: dict[str, Any]) -> Case:
        return Case(**{**plain, "peer": Settings(**plain["peer"])})


def completion_lengths(group: int, *, longest: int = LONGEST) -> list[int]:
    """Tokens of a group's completions, ragged as samples are: the k-th of G has (k/G)^2 of the
    longest, on average four tenths of it.
    """
    return [max(2, round(longest * (k / group) ** 2)) for k in range(1, group + 1)]


def least_tokens(case: Case) -> int:
    """update: the fewest tokens that must be computed, every prompt and every completion once."""
    return case.prompts * (case.prompt + sum(completion_lengths(case.group)))
