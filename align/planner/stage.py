"""One stage planned: which models it holds, its memory, its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def models_of(config: Any, stages: Sequence[Stage], *, file: Path | None = None) -> Models:
    """The sizes of all models that the stage names. Raises ShapeError."""
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
    rate: float | None = None,
) -> Plan:  # fmt: skip
    """rows: the data's lengths; rate: operations a second, where they were measured."""
    work = load(config, rows, processes=machine.processes)
    return Plan(
        config=config,
        machine=machine,
        models=models,
        load=work,
        memory=memory(config, models, work, machine),
        speed=speed(config, models, work.a_step, work.sampled, machine, rate=rate),
        known=rows is not None,
    )
