"""One stage planned: which models it holds, its memory, its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from align.config import Distill, Ppo, Stage
from align.planner.find import shape_of
from align.planner.load import Load, load
from align.planner.memory import Machine, Models
from align.planner.packs import Row
from align.planner.phases import Memory, memory
from align.planner.speed import Speed, speed
from align.references import loading

# Fields that do not tell which packs there are; of `compute` the token budget does.
APART = ("checkpoints", "compute", "engine", "lora", "optim")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """known: whether the data's own lengths were read."""

    config: Any
    machine: Machine
    models: Models
    load: Load
    memory: Memory
    speed: Speed
    known: bool

    @property
    def fits(self) -> bool:
        return self.memory.peak.bytes <= self.machine.memory


class Loads:
    """What variants of a stage compute. Most differ in what it costs alone, and have one load."""

    def __init__(self, rows: Sequence[Row] | None) -> None:
        self.rows = rows
        self._found: dict[tuple[Any, ...], tuple[Any, Load]] = {}

    def of(self, config: Any, machine: Machine) -> Load:
        # A variant holds the very values that it does not change.
        kept = [id(getattr(config, one.name)) for one in fields(config) if one.name not in APART]
        key = (*kept, config.compute.token_budget, machine.processes)
        if key not in self._found:
            self._found[key] = (config, load(config, self.rows, processes=machine.processes))
        return self._found[key][1]


def models_of(config: Any, stages: Sequence[Stage], *, file: Path | None = None) -> Models:
    """The sizes of all models that the stage names. stages: those before it. Raises ShapeError."""
    policy = shape_of(config.model, stages, config=file)
    critic = None
    if isinstance(config, Ppo) and config.critic == "separate":
        named = config.critic_model
        critic = shape_of(named, stages, config=file) if named else policy
    teacher = None
    if isinstance(config, Distill):
        teacher = shape_of(config.teacher, stages, config=file)
    judges = {one.model for one in loading(getattr(config, "reward", None))}
    if getattr(config, "critic", "") == "adapters":
        judges = set()
    rewards = tuple(shape_of(name, stages, config=file) for name in sorted(judges))
    return Models(policy=policy, critic=critic, teacher=teacher, rewards=rewards)


def planned(
    config: Any, models: Models, machine: Machine, rows: Sequence[Row] | None = None, *,
    rate: float | None = None, loads: Loads | None = None,
) -> Plan:  # fmt: skip
    """rows: the data's lengths; rate: operations a second, where they were measured; loads: of the
    same rows, where variants of one stage are planned.
    """
    work = (loads or Loads(rows)).of(config, machine)
    return Plan(
        config=config,
        machine=machine,
        models=models,
        load=work,
        memory=memory(config, models, work, machine),
        speed=speed(config, models, work.a_step, work.sampled, machine, rate=rate),
        known=rows is not None,
    )
