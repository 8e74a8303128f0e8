"""Rejection sampling: a stage that trains nothing and writes a chat data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from align.config.parts import Engine, Sampling, Stage, require, require_reward
from data import Source
from data.prompting import FewShot, Plain, Reflect
from rewards.scripts import SCRIPTS


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What a sample must be to be kept. Only whole samples are: one cut at max_tokens never is.

    Where the reward judges correctness a sample must be right.
    """

    min_reward: float = 0.0
    """Where nothing judges correctness, the least reward."""
    max_tokens: int = 0
    """A longer sample is overlong; 0: as long as it was let."""
    repetition: float = 0.5
    """Most share of a text's word 3-grams that may repeat earlier ones; 1 lets all pass."""
    language: str = "en"
    """The reasoning's language, told by its script; empty: any."""
    language_share: float = 0.95
    """Least share of the reasoning's letters in that script; what has no letters passes."""
    format: bool = False
    """Only `<think>…</think><answer>…</answer>`."""
    per_prompt: int = 1
    """Most samples of one prompt."""
    take: Literal["shortest", "best"] = "shortest"
    """Which of a prompt's: the fewest tokens, or the highest reward (then the fewest tokens)."""
    duplicates: float = 0.8
    """Jaccard similarity of word 3-grams from which two samples are near-duplicates."""

    def __post_init__(self) -> None:
        require(self.max_tokens >= 0, "keep.max-tokens", self.max_tokens, "at least 0")
        known = f"one of {', '.join(sorted(SCRIPTS))}, or empty"
        require(self.language in ("", *SCRIPTS), "keep.language", self.language, known)
        require(self.per_prompt > 0, "keep.per-prompt", self.per_prompt, "at least 1")
        for name in ("repetition", "language_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"keep.{name.replace('_', '-')}", value, "a share, 0 to 1")
        require(
            0 < self.duplicates <= 1, "keep.duplicates", self.duplicates, "above 0 and at most 1"
        )


@dataclass(frozen=True, kw_only=True)
class Sample(Stage):
    """Rejection sampling: many completions a prompt, the good ones written as chat rows."""

    kind: ClassVar[str] = "sample"
    rows_kind: ClassVar[str] = "grpo"
    writes: ClassVar[Literal["policy", "scorer", "data"]] = "data"
    free: ClassVar[tuple[str, ...]] = ("keep", "general", "general_share", "write")
    """What chooses among the samples: with other values they are chosen again, not drawn again."""

    name: str = "sample"
    reward: Callable[..., Any]
    """A reward of `rewards`, a reward model, a weighted sum, or any function of TRL's protocol."""
    samples: int = 8
    """Completions a prompt."""
    prompts: int = 32
    """Prompts a batch, over all processes: what is saved, and lost by a kill, at once."""
    limit: int = 0
    """Prompts, the first of the data; 0: all."""
    engine: Engine = field(default_factory=lambda: Engine(gpu_memory=0.8))
    sampling: Sampling = field(default_factory=Sampling)
    prompting: Plain | FewShot | Reflect = field(default_factory=Plain)
    """How the sampler is asked; the rows written hold the plain prompt."""
    clean: bool = False
    """Write what was sampled as `<think>…</think><answer>…</answer>`, and score that."""
    keep: Keep = field(default_factory=Keep)
    general: Source | None = None
    """Rows to mix in, such as general chats that keep other abilities."""
    general_share: float = 0.0
    """Their share of the rows written."""
    write: Literal["jsonl", "parquet"] = "jsonl"
    """parquet: data.parquet beside data.jsonl."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_reward(self.reward)
        for name in ("samples", "prompts"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        require(self.limit >= 0, "limit", self.limit, "at least 0")
        share = self.general_share
        require(0 <= share < 1, "general-share", share, "at least 0 and below 1")
        both = (self.general is None) == (share == 0)
        require(both, "general-share", share, "above 0 with --general, and 0 without")
        several = self.samples == 1 or self.sampling.temperature > 0
        require(several, "samples", self.samples, "1 at --sampling.temperature 0: all are the same")
