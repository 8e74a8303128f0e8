"""What makes a stage fit: single changes and pairs, the cheapest first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from align.config import ConfigError, Sample
from align.planner.load import token_budget
from align.planner.memory import Machine
from align.planner.stage import Plan

FSDP = "recipes/accelerate/fsdp2.yaml"
RANK = 16
Planner = Callable[[Any, Machine], Plan]


@dataclass(frozen=True, kw_only=True)
class Change:
    """flags: as a stage's script takes them; config and machine: with it. costs: in a word."""

    flags: tuple[str, ...]
    costs: str
    values: dict[str, Any]
    sharded: bool = False


@dataclass(frozen=True, kw_only=True)
class Cure:
    """Changes together, and what comes of them."""

    changes: tuple[Change, ...]
    plan: Plan

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(flag for change in self.changes for flag in change.flags)

    @property
    def costs(self) -> str:
        return "; ".join(change.costs for change in self.changes)


def cures(plan: Plan, again: Planner) -> list[Cure]:
    """Every single change, cheapest first; where none suffices, the first combination that does.

    again: plans a configuration on a machine.
    """
    changes = list(_changes(plan))
    found = [cure for one in changes if (cure := _tried(plan, (one,), again))]
    if plan.fits or any(cure.plan.fits for cure in found):
        return found
    for count in range(2, len(changes) + 1):
        for several in combinations(changes, count):
            cure = _tried(plan, several, again)
            if cure is not None and cure.plan.fits:
                return [*found, cure]
    return found


def cheapest(found: list[Cure]) -> Cure | None:
    """The first that fits."""
    return next((cure for cure in found if cure.plan.fits), None)


def _changes(plan: Plan) -> Iterator[Change]:
    """That apply to the stage, from what costs least to what costs most."""
    config, machine = plan.config, plan.machine
    compute = config.compute
    if isinstance(config, Sample):
        yield from _sampler(plan)
        return
    if compute.precision == "fp32":
        yield Change(
            flags=("--compute.precision", "bf16"), costs="products round to bf16",
            values={"compute.precision": "bf16"},
        )  # fmt: skip
    # A single sequence longer than the budget is one pack all the same.
    least = max(plan.load.tried.longest, 256)
    ratio = compute.token_budget // max(1, token_budget(config))
    if (budget := compute.token_budget // 2) >= least * ratio:
        smaller = budget
        while smaller // 2 >= least * ratio and smaller // 2 >= compute.token_budget // 8:
            smaller //= 2
        for size in dict.fromkeys((budget, smaller)):
            yield Change(
                flags=("--compute.token-budget", str(size)), costs="more, smaller passes",
                values={"compute.token_budget": size},
            )  # fmt: skip
    shared = getattr(config, "critic", "") == "adapters"
    if not compute.gradient_checkpointing and not shared:
        yield Change(
            flags=("--compute.gradient-checkpointing", "True"),
            costs="a third more time to train",
            values={"compute.gradient_checkpointing": True},
        )
    if machine.gpus > 1 and not machine.sharded:
        yield Change(
            flags=(), costs=f"weights travel every pass (accelerate launch --config_file {FSDP})",
            values={}, sharded=True,
        )  # fmt: skip
    yield from _sampler(plan)
    if not config.lora.rank:
        yield Change(
            flags=("--lora.rank", str(RANK)),
            costs="adapters learn instead of all weights; raise --optim.lr about tenfold",
            values={"lora.rank": RANK},
        )


def _sampler(plan: Plan) -> Iterator[Change]:
    engine = getattr(plan.config, "engine", None)
    if engine is None or engine.kind != "vllm" or not plan.machine.gpus:
        return
    if not engine.sleep and not isinstance(plan.config, Sample) and engine.gpu_memory > 0.2:
        yield Change(
            flags=("--engine.gpu-memory", "0.2"), costs="fewer completions at a time",
            values={"engine.gpu_memory": 0.2},
        )  # fmt: skip


def _tried(plan: Plan, changes: tuple[Change, ...], again: Planner) -> Cure | None:
    """None where the changes do not go together."""
    values: dict[str, Any] = {}
    for change in changes:
        if values.keys() & change.values.keys():
            return None
        values |= change.values
    machine = plan.machine
    if any(change.sharded for change in changes):
        machine = replace(machine, sharded=True)
    try:
        return Cure(changes=changes, plan=again(changed(plan.config, values), machine))
    except ConfigError:
        return None


def changed(config: Any, values: dict[str, Any]) -> Any:
    """The configuration with values by dotted name. Raises ConfigError."""
    for name, value in values.items():
        part, _, field = name.rpartition(".")
        if part:
            inner = dataclasses.replace(getattr(config, part), **{field: value})
            config = dataclasses.replace(config, **{part: inner})
        else:
            config = dataclasses.replace(config, **{field: value})
    return config
