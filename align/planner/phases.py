"""Memory of one process of a stage by part and phase, and the peak.

On a CPU that is resident memory. glibc gives a freed block of 32 MiB or more back to the system,
and keeps smaller ones: a later phase finds them there, so what counts is the largest moment of the
small blocks together with the phase's own large ones. On a GPU it is the device's memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.config import Distill, Dpo, Kto, Rollouts, Sample
from align.planner.activations import COPIES, Item
from align.planner.load import Load
from align.planner.memory import LARGE, MIB, Held, Machine, Models

# Small blocks that lie between others and fit nothing, over those in use: after the first pack,
# after many packs of different sizes, and how many of those it takes to get two thirds of the way.
# With adapters float32 copies of a projection's input come and go among what is kept.
FULL, LORA = (0.08, 0.63, 12), (0.3, 0.8, 6)
SLACK_CUDA = 0.08
# Programs that oneDNN keeps of the last 1,024 products, which are other ones for each size.
KERNELS, KERNEL_SIZES = 540 * MIB, 35


@dataclass(frozen=True, kw_only=True)
class Phase:
    """parts: bytes by name, which add up to the phase's memory."""

    name: str
    parts: Mapping[str, float]

    @property
    def bytes(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class Memory:
    """phases in the order of a run."""

    phases: tuple[Phase, ...]
    load: Load = field(repr=False)

    @property
    def peak(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.bytes)


def memory(config: Any, models: Models, load: Load, machine: Machine) -> Memory:
    """Of one process."""
    held = Held(config, models, load, machine)
    return Memory(phases=tuple(_summed(held, _phases(held))), load=load)


def _phases(held: Held) -> list[tuple[str, list[Item]]]:
    config, load = held.config, held.load
    kernels = _kernels(held) if held.trains else []
    moments = [*kernels, *held.moments()]
    found: list[tuple[str, list[Item]]] = [("load", [])]
    if isinstance(config, Rollouts | Distill | Sample):
        found.append(("sample", [*moments, *held.sampling()]))
    if isinstance(config, Rollouts | Dpo | Kto):
        # The probe, the reference's log-probs, old ones: the same pack without a gradient.
        found.append(("passes without gradient", [*moments, *held.reading()]))
    if not held.trains:
        return found
    gradients = held.gradients()
    found.append(("trial", [*held.moments(stepped=True), *held.backward(load.tried)]))
    found.append(("train: backward begins", [*moments, *held.backward(load.first)]))
    if load.later:
        # Beside the gradients that are there. With checkpointing the weights' copies go before the
        # head's gradient comes, and lie where the first pack's did.
        own = held.backward(load.later)
        if config.compute.gradient_checkpointing and not held.gpu:
            own = [item for item in own if item.name != COPIES]
        found.append(("train: a later pack", [*moments, *gradients, *own]))
    ends = Item(name="embedding", bytes=held.embedding(), block=held.embedding())
    found.append(("train: backward ends", [*moments, *gradients, ends]))
    stepped = [*kernels, *held.moments(stepped=True)]
    found.append(("optimizer step", [*stepped, *gradients]))
    found.append(("export", [*stepped, *held.merged()]))
    return found


def _summed(held: Held, found: Sequence[tuple[str, list[Item]]]) -> list[Phase]:
    """Each phase's parts, with what the allocator holds besides."""
    fixed = held.fixed()
    keeps = held.config.compute.keep_memory
    small, used = {}, {}
    for name, items in found:
        kept = [i for i in items if i.block < LARGE or keeps or held.gpu]
        used[name] = sum(item.bytes for item in kept)
        # Moments stay where they are, and programs are small: nothing comes to lie between them.
        spread = sum(item.bytes for item in kept if item.name not in ("optimizer", "kernels"))
        small[name] = used[name] + _slack(held, 1 if name == "trial" else held.sizes) * spread
    # Sampling comes again after the first step, and finds what training left; the trial's is
    # given back.
    most = max(size for name, size in small.items() if name != "trial")
    summed = []
    for name, items in found:
        own = held.gpu or name in ("load", "trial")
        parts = dict(fixed)
        for item in items:
            parts[item.name] = parts.get(item.name, 0.0) + item.bytes
        parts["allocator"] = (small[name] if own else most) - used[name]
        summed.append(Phase(name=name, parts={k: v for k, v in parts.items() if v}))
    return summed


def _slack(held: Held, sizes: int) -> float:
    """Of the small blocks in use, after packs of so many sizes."""
    if held.gpu:
        return SLACK_CUDA
    first, late, most = LORA if held.lora.rank else FULL
    return first + (late - first) * _risen(sizes, most)


def _risen(sizes: int, most: int) -> float:
    """From 0 to 1."""
    return 1 - math.exp(-sizes / most)


def _kernels(held: Held) -> list[Item]:
    """In float32 products are not oneDNN's."""
    if held.gpu or held.config.compute.precision == "fp32":
        return []
    return [Item(name="kernels", bytes=KERNELS * _risen(held.sizes, KERNEL_SIZES))]
