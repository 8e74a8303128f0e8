"""Configuration: frozen, keyword-only dataclasses, one for each part of a stage and each stage.

Values live in `recipes/`; every field here is also a dotted flag of the stage's script
(`--optim.lr 2e-6`). Nothing here imports torch, so `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from data import Source


class ConfigError(ValueError):
    """A value that cannot work; the message names the flag and what it must be."""


def _require(right: bool, flag: str, value: object, must: str) -> None:
    if not right:
        raise ConfigError(f"--{flag} {value}: it must be {must}")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW and its learning-rate schedule."""

    lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: float = 0.0
    """Share of all optimizer steps over which the rate rises from 0."""

    def __post_init__(self) -> None:
        _require(self.lr >= 0, "optim.lr", self.lr, "at least 0")
        _require(
            self.max_grad_norm > 0,
            "optim.max-grad-norm",
            self.max_grad_norm,
            "positive (inf never clips)",
        )
        _require(0 <= self.warmup <= 1, "optim.warmup", self.warmup, "a share, 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685); rank 0 trains all weights."""

    rank: int = 0
    alpha: float = 32.0
    dropout: float = 0.0
    target: str = "all-linear"
    """Module names, comma-separated, or `all-linear`."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a batch is computed; none of these change what is computed."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: autocast over float32 master weights."""
    token_budget: int = 8192
    """Tokens a pack, prompts counted once: the memory knob."""
    layout: Literal["packed", "padded"] = "packed"
    """packed: a prompt is computed once for all its completions."""
    gradient_checkpointing: bool = False
    threads: int = 0
    """CPU threads of the trainer; 0 leaves torch's choice."""

    def __post_init__(self) -> None:
        _require(
            self.token_budget > 0, "compute.token-budget", self.token_budget, "at least 1 token"
        )


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Exact-resume checkpoints."""

    every: int = 10
    """Steps between two checkpoints; 0 writes none but on SIGTERM."""
    keep: int = 2
    """Newest ones kept."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What samples completions."""

    kind: Literal["vllm", "hf"] = "vllm"
    """vllm: in this process; hf: `generate` of the trained model, slower, bit-exact on resume."""
    gpu_memory: float = 0.35
    """Share of the GPU's memory for vLLM's weights and KV cache."""
    cpu_cache: float = 1.0
    """GiB of KV cache where vLLM runs on the CPU."""
    eager: bool = True
    """No graph capture: starts in seconds, samples slower on a GPU."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a completion is drawn."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    max_prompt_tokens: int = 1024
    """A longer prompt is dropped, and counted, before the first step."""
    max_tokens: int = 2048
    """Completion tokens; a longer one is cut and counted as truncated."""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_prompt_tokens"):
            value = getattr(self, name)
            _require(value > 0, f"sampling.{name.replace('_', '-')}", value, "at least 1")
        _require(self.temperature >= 0, "sampling.temperature", self.temperature, "at least 0")
        _require(0 < self.top_p <= 1, "sampling.top-p", self.top_p, "above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every training stage has."""

    kind: ClassVar[str]

    name: str
    """Folder of the stage inside the run folder, and what `@name` refers to."""
    model: str
    """A folder, a hub id, or `@stage` for what an earlier stage of this run wrote."""
    data: Source
    """A file (.jsonl, .parquet), a known name such as gsm8k, or a hub id."""
    seed: int = 0
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    compute: Compute = field(default_factory=Compute)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    trust_remote_code: bool = False
    """Runs code that ships with the model: only for models that you have read."""


@dataclass(frozen=True, kw_only=True)
class Sft(Stage):
    """Supervised fine-tuning: cross-entropy on the completion's tokens, end token included."""

    kind: ClassVar[str] = "sft"

    name: str = "sft"
    optim: Optim = field(default_factory=lambda: Optim(lr=2e-5, schedule="cosine", warmup=0.05))
    epochs: float = 1.0
    batch: int = 32
    """Sequences an optimizer step, over all processes."""
    max_tokens: int = 4096
    """A longer row is dropped, and counted, before the first step."""

    def __post_init__(self) -> None:
        _require(self.batch > 0, "batch", self.batch, "at least 1")
        _require(self.epochs > 0, "epochs", self.epochs, "above 0")


@dataclass(frozen=True, kw_only=True)
class Grpo(Stage):
    """GRPO (arXiv 2402.03300) and its relatives: policy gradient with a group baseline."""

    kind: ClassVar[str] = "grpo"

    name: str = "grpo"
    reward: Callable[..., Any]
    """A reward of `rewards`, a weighted sum of them, or any function of TRL's protocol."""
    steps: int = 0
    """Steps (rollouts); 0: one pass over the data."""
    prompts: int = 16
    """Prompts a step, over all processes."""
    samples: int = 8
    """Completions a prompt: the group of the group advantage."""
    engine: Engine = field(default_factory=Engine)
    sampling: Sampling = field(default_factory=Sampling)
    advantage: Literal["group", "leave-one-out", "reinforce++"] = "group"
    scale: Literal["group", "batch", "none"] = "group"
    """What a group advantage is divided by (none: Dr. GRPO, arXiv 2503.20783)."""
    objective: Literal["grpo", "gspo", "cispo"] = "grpo"
    """grpo: token-level clip; gspo: sequence-level ratio; cispo: clipped weight."""
    reduction: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "dapo"
    """Mean per sequence, per token of the minibatch, of the rollout, or over a constant length."""
    eps_low: float = 0.2
    eps_high: float = 0.28
    """Bounds of the ratio: 1 - eps_low .. 1 + eps_high (arXiv 2503.14476)."""
    ratio_max: float = 5.0
    """cispo: the ratio's cap."""
    beta: float = 0.0
    """Weight of the k3 KL to the reference, which is the stage's input model."""
    kl_every: int = 0
    """At beta 0: steps between two measurements of that KL; 0 never measures and loads nothing."""
    entropy: float = 0.0
    """Weight of the entropy bonus; positive explores more."""
    minibatches: int = 1
    """Optimizer steps a rollout is cut into."""
    iterations: int = 1
    """Passes over a rollout."""
    importance: Literal["token", "sequence", "off"] = "token"
    """Truncated weights that correct the sampler's log-probs to the trainer's."""
    importance_cap: float = 2.0
    mask_truncated: bool = False
    """Completions cut at max_tokens do not train."""
    refill: int = 0
    """Rounds of sampling that replace dead groups (all right or all wrong); 0: none."""
    samples_logged: int = 0
    """Completions a step written to samples.jsonl; 0: all."""

    def __post_init__(self) -> None:
        for name in ("prompts", "minibatches", "iterations"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        _require(self.samples > 1, "samples", self.samples, "at least 2: a group is compared")
        for name in ("steps", "refill"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        _require(0 <= self.eps_low <= 1, "eps-low", self.eps_low, "between 0 and 1")
        sampling = self.sampling
        _require(
            sampling.temperature > 0,
            "sampling.temperature",
            sampling.temperature,
            "above 0 to train: the likeliest token alone has nothing to compare",
        )
        # Both samplers renormalise over the tokens kept, so their log-probs mean something else.
        whole = sampling.top_p == 1 and sampling.top_k == 0
        _require(
            whole or self.importance == "off",
            "importance",
            self.importance,
            "off where --sampling.top-p or --sampling.top-k cuts the distribution",
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out problems, answered greedily by default and scored strictly and leniently."""

    data: Source
    """A file (.jsonl, .parquet), a known name such as gsm8k:test, or a hub id."""
    engine: Engine = field(default_factory=lambda: Engine(gpu_memory=0.8))
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    limit: int = 0
    """Problems; 0: all."""
    seed: int = 0
    trust_remote_code: bool = False
    """Runs code that ships with the model: only for models that you have read."""
