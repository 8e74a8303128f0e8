"""On-policy distillation: a student follows a teacher's token distribution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from align.config.parts import Engine, Sampling, Training, require


@dataclass(frozen=True, kw_only=True)
class Distill(Training):
    """Distillation on the teacher's token distribution, on-policy (GKD, arXiv 2306.13649)."""

    kind: ClassVar[str] = "distill"

    name: str = "distill"
    teacher: str
    """A model reference like `model`, with the student's tokenizer; stays as it is."""
    beta: float = 0.5
    """0: forward KL, 1: reverse KL, between: generalised Jensen-Shannon divergence."""
    on_policy: float = 1.0
    """Share of the prompts whose completions the student samples; the others take their rows' own
    completion."""
    temperature: float = 1.0
    """Both distributions are compared at this one; `sampling.temperature` is the sampler's."""
    steps: int = 0
    """Optimizer steps, each on completions of the student as it then is; 0: one pass over the
    data."""
    prompts: int = 16
    """Prompts a step, over all processes."""
    samples: int = 1
    """Completions that the student samples of a prompt."""
    engine: Engine = field(default_factory=Engine)
    sampling: Sampling = field(default_factory=Sampling)
    """A row's own completion is cut at max_tokens too."""
    samples_logged: int = 0
    """Completions a step written to samples.jsonl; 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prompts", "samples"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        require(self.steps >= 0, "steps", self.steps, "at least 0")
        for name in ("beta", "on_policy"):
            value = getattr(self, name)
            require(0 <= value <= 1, name.replace("_", "-"), value, "between 0 and 1")
        require(self.temperature > 0, "temperature", self.temperature, "above 0")

    @property
    def rows_kind(self) -> str:  # type: ignore[override]
        """Rows need a completion where it is to be followed."""
        return "sft" if self.on_policy < 1 else "distill"
