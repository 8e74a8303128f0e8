"""What stages are made of: optimizer, adapters, compute, checkpoints, sampling, and their base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from data import Source


class ConfigError(ValueError):
    """A value that cannot work; the message names the flag and what it must be."""


def require(right: bool, flag: str, value: object, must: str) -> None:
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
        require(self.lr >= 0, "optim.lr", self.lr, "at least 0")
        require(
            self.max_grad_norm > 0,
            "optim.max-grad-norm",
            self.max_grad_norm,
            "positive (inf never clips)",
        )
        require(0 <= self.warmup <= 1, "optim.warmup", self.warmup, "a share, 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685); rank 0 trains all weights."""

    rank: int = 0
    alpha: float = 32.0
    dropout: float = 0.0
    target: str = "all-linear"
    """Module names, comma-separated, or `all-linear`."""
    base: Literal["merge", "stack"] = "merge"
    """Of an input that has adapters itself: merge starts from the weights with them added in, stack
    keeps them apart, frozen, under the new ones."""

    def __post_init__(self) -> None:
        require(self.rank >= 0, "lora.rank", self.rank, "at least 0")
        stacks = self.base == "stack"
        require(not stacks or self.rank > 0, "lora.base", self.base, "merge where --lora.rank is 0")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a batch is computed; none of these change what is computed."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: autocast over float32 master weights."""
    token_budget: int = 8192
    """Tokens a pack, prompts counted once: the memory knob. A pack that does not fit is halved."""
    layout: Literal["packed", "padded"] = "packed"
    """packed: a prompt is computed once for all its completions."""
    gradient_checkpointing: bool = False
    threads: int = 0
    """CPU threads of the trainer; 0 leaves torch's choice."""
    keep_memory: bool = False
    """CPU, glibc: freed memory stays with the process for the next pack. SFT of SmolLM2: half the
    page faults, peak 3.8 -> 4.2 GiB; 1.4 -> 1.0 s a step on two idle cores, no sure gain on busy
    ones."""
    patience: float = 1800.0
    """Seconds that processes wait for one another: one that hangs, or whose machine is gone, ends
    the run after them. More than the longest sampling or scoring of one process alone."""

    def __post_init__(self) -> None:
        require(
            self.token_budget > 0, "compute.token-budget", self.token_budget, "at least 1 token"
        )
        require(self.threads >= 0, "compute.threads", self.threads, "at least 0")
        require(self.patience > 0, "compute.patience", self.patience, "above 0")


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Exact-resume checkpoints."""

    every: int = 10
    """Steps between two checkpoints; 0 writes none but on SIGTERM."""
    keep: int = 2
    """Newest ones kept."""

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            value = getattr(self, name)
            require(value >= 0, f"checkpoints.{name}", value, "at least 0")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What samples completions."""

    kind: Literal["vllm", "hf", "server"] = "vllm"
    """vllm: in this process; hf: `generate` of the trained model, slower, bit-exact on resume;
    server: a vLLM server of its own; a stage that trains sends it the weights."""
    gpu_memory: float = 0.35
    """Share of the GPU's memory for vLLM's weights and KV cache."""
    cpu_cache: float = 1.0
    """GiB of KV cache where vLLM runs on the CPU."""
    eager: bool = True
    """No graph capture: starts in seconds, samples slower on a GPU."""
    sleep: bool = False
    """vllm, on a GPU: give back its memory while the trainer works."""
    url: str = "http://127.0.0.1:8000"
    """server: where it listens."""
    served: str = ""
    """server: the model's name there; default: the only one it serves."""
    time_limit: float = 600.0
    """server: seconds that one completion, or one loading of weights, may take."""
    patience: float = 60.0
    """server: seconds to wait for one that is gone, which may be started again meanwhile."""
    sync: Literal["folder", "nccl"] = "folder"
    """server: how weights get there: folder, which trainer and server both see; nccl, from GPU to
    GPU."""
    sync_folder: str = ""
    """server: that folder, under the same path here and there; default: `sync` in the stage's."""

    def __post_init__(self) -> None:
        require(self.time_limit > 0, "engine.time-limit", self.time_limit, "above 0")
        require(self.patience >= 0, "engine.patience", self.patience, "at least 0")
        share = self.gpu_memory
        require(0 < share <= 1, "engine.gpu-memory", share, "a share of it, above 0 and at most 1")
        require(self.cpu_cache > 0, "engine.cpu-cache", self.cpu_cache, "above 0")
        here = not self.sleep or self.kind == "vllm"
        require(here, "engine.sleep", self.sleep, "False where --engine.kind is not vllm")


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
            require(value > 0, f"sampling.{name.replace('_', '-')}", value, "at least 1")
        require(self.temperature >= 0, "sampling.temperature", self.temperature, "at least 0")
        require(self.top_k >= 0, "sampling.top-k", self.top_k, "at least 0 (which takes any token)")
        require(0 < self.top_p <= 1, "sampling.top-p", self.top_p, "above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every stage has."""

    kind: ClassVar[str]
    rows_kind: ClassVar[str] = ""
    """What the validator calls the rows it reads, where that is not the stage's own kind."""
    writes: ClassVar[Literal["policy", "scorer", "data"]] = "policy"
    free: ClassVar[tuple[str, ...]] = ()
    """Fields that a resumed stage may be given anew."""

    name: str
    """Folder of the stage inside the run folder, and what `@name` refers to."""
    model: str
    """A folder, a hub id, or `@stage` for what an earlier stage of this run wrote."""
    data: Source
    """A file (.jsonl, .parquet), a known name such as gsm8k, or a hub id."""
    seed: int = 0
    compute: Compute = field(default_factory=Compute)
    trust_remote_code: bool = False
    """Runs code that ships with the model: only for models that you have read."""

    def __post_init__(self) -> None:
        plain = self.name.replace("-", "").replace("_", "").isalnum()
        taken = self.name in ("default", "critic")  # what adapters are called while they train
        require(plain and not taken, "name", self.name, "letters, digits, - and _, and neither "
                "default nor critic")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Training(Stage):
    """What every stage that trains a model has."""

    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out problems, answered greedily by default and scored strictly and leniently."""

    data: Source
    """A file (.jsonl, .parquet), a known name such as gsm8k:test, or a hub id."""
    name: str = "evaluation"
    """What its results and its flags are called."""
    engine: Engine = field(default_factory=lambda: Engine(gpu_memory=0.8))
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    samples: int = 1
    """Answers to each problem; above 1 (pass@k, maj@k) they need a temperature above 0."""
    limit: int = 0
    """Problems; 0: all."""
    seed: int = 0
    trust_remote_code: bool = False
    """Runs code that ships with the model: only for models that you have read."""

    def __post_init__(self) -> None:
        plain = self.name.replace("-", "").replace("_", "").isalnum()
        require(plain, "name", self.name, "letters, digits, - and _")
        require(self.samples > 0, "samples", self.samples, "at least 1")
        greedy = self.samples > 1 and self.sampling.temperature == 0
        require(not greedy, "samples", self.samples, "1 at a temperature of 0, where all answers "
                "would be the same; add --sampling.temperature 0.7")  # fmt: skip
