"""What one process of a stage holds, in bytes: from its start to its end, and at its moments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from align.config import Grpo, Lora, Ppo, RewardModel, Rollouts, Sample
from align.planner.activations import FLOAT, Item, Pass
from align.planner.load import Load
from align.planner.packs import Packed
from align.planner.shape import Shape

MIB, GIB = 2**20, 2**30
LARGE = 32 * MIB  # M_MMAP_THRESHOLD grows up to this (mallopt(3))
# Interpreter, torch, transformers, datasets and the data of a run before a model is there.
BASE, PEFT, VLLM, CUDA = 640 * MIB, 20 * MIB, 520 * MIB, 600 * MIB
ROWS = 128  # completions that `generate` decodes together


@dataclass(frozen=True, kw_only=True)
class Machine:
    """gpus: processes, 0 for one on the CPU. memory: bytes of each. sharded: FSDP2."""

    gpus: int
    memory: float
    sharded: bool = False

    @property
    def processes(self) -> int:
        return max(1, self.gpus)


@dataclass(frozen=True, kw_only=True)
class Models:
    """Of a stage: what trains, the critic beside it, the teacher, reward models."""

    policy: Shape
    critic: Shape | None = None
    teacher: Shape | None = None
    rewards: tuple[Shape, ...] = ()


class Held:
    """Bytes of what one process of a stage holds: from start to end, and at its moments."""

    def __init__(self, config: Any, models: Models, load: Load, machine: Machine) -> None:
        self.config, self.models, self.load, self.machine = config, models, load, machine
        self.gpu = machine.gpus > 0
        self.lora: Lora = getattr(config, "lora", Lora())
        self.kind = getattr(getattr(config, "engine", None), "kind", "")
        self.share = machine.processes if machine.sharded else 1
        self.trains = not isinstance(config, Sample)

    @property
    def sizes(self) -> int:
        """Packs of different sizes that leave holes behind."""
        config, load = self.config, self.load
        if isinstance(config, Grpo) and self.lora.rank and not (config.beta or config.entropy):
            # Groups rewarded alike are not computed, and how many those are is not known: between
            # none and nearly all of them lies about one pack a step.
            return min(load.sizes, load.updates)
        return load.sizes

    def fixed(self) -> dict[str, float]:
        """What is there from the start to the end."""
        config, models, lora = self.config, self.models, self.lora
        base = CUDA if self.gpu else BASE + PEFT * bool(lora.rank)
        parts: dict[str, float] = {"libraries": base}
        scorer = isinstance(config, RewardModel)
        policy = models.policy.classifier if scorer else models.policy.parameters
        if self.trains or self.kind == "hf":
            parts["weights"] = FLOAT * policy / self.share
        if lora.rank:
            parts["LoRA"] = FLOAT * self._adapters() / self.share
        if self._reference():
            parts["reference"] = FLOAT * policy
        if models.critic is not None:
            parts["critic"] = FLOAT * models.critic.classifier / self.share
        if models.rewards:
            parts["reward models"] = FLOAT * sum(one.classifier for one in models.rewards)
        if models.teacher is not None:
            parts["teacher"] = FLOAT * models.teacher.parameters
        if self.kind == "vllm":
            parts |= self._vllm()
        if self.machine.sharded and self.machine.gpus > 1:
            gathered = models.policy.embedding + 2 * models.policy.projected / models.policy.layers
            parts["gathered"] = FLOAT * gathered
        elif self.machine.gpus > 1 and self.trains:
            parts["DDP buckets"] = FLOAT * self._trained()
        return parts

    def _vllm(self) -> dict[str, float]:
        engine, policy = self.config.engine, self.models.policy
        if self.gpu:
            return {"vLLM": engine.gpu_memory * self.machine.memory}
        # All of the cache is written to at the start; so it is there whether it is used or not.
        cache = round(engine.cpu_cache) * GIB
        return {"vLLM": VLLM + 2 * policy.parameters, "KV cache": cache}

    def _reference(self) -> bool:
        config = self.config
        if not isinstance(config, Rollouts) or self.lora.rank:
            return False
        return isinstance(config, Ppo) or bool(
            config.beta or (isinstance(config, Grpo) and config.kl_every)
        )

    def _adapters(self) -> int:
        count = self.models.policy.adapters(self.lora)
        return count * (2 if getattr(self.config, "critic", "") == "adapters" else 1)

    def _trained(self) -> float:
        """Numbers that learn."""
        models = self.models
        scorer = isinstance(self.config, RewardModel)
        own = models.policy.classifier if scorer else models.policy.parameters
        policy = self._adapters() if self.lora.rank else own
        return policy + (models.critic.classifier if models.critic else 0)

    def moments(self, *, stepped: bool = False) -> list[Item]:
        """Of what has learned in a step before. stepped: in this one."""
        if not self.trains:
            return []
        critic = self.models.critic.classifier if self.models.critic else 0
        policy = self._trained() - critic
        updates, warming = self.load.updates, self.load.warming
        numbers = policy * (stepped or updates - warming > 1) + critic * (stepped or updates > 1)
        whole = 2 * FLOAT * numbers / self.share
        largest = min(whole, 2 * self.embedding() * (2 if critic else 1))
        return [
            Item(name="optimizer", bytes=whole - largest),
            Item(name="optimizer", bytes=largest, block=largest),
        ]

    def gradients(self) -> list[Item]:
        embedding = 0 if self.lora.rank else self.embedding() * (2 if self.models.critic else 1)
        rest = FLOAT * self._trained() / self.share - embedding
        return [
            Item(name="gradients", bytes=rest),
            Item(name="gradients", bytes=embedding, block=embedding),
        ]

    def embedding(self) -> float:
        return 0.0 if self.lora.rank else FLOAT * self.models.policy.embedding / self.share

    def _passes(self, pack: Packed) -> list[Pass]:
        config = self.config
        options = {"pack": pack, "compute": config.compute, "gpu": self.gpu}
        scorer = isinstance(config, RewardModel)
        found = [
            Pass(shape=self.models.policy, lora=self.lora, scores_tokens=not scorer, **options)
        ]
        if self.models.critic is not None:
            found.append(
                Pass(shape=self.models.critic, lora=Lora(), scores_tokens=False, **options)
            )
        elif getattr(config, "critic", "") == "adapters":
            found.append(replace(found[0], scores_tokens=False))
        return found

    def backward(self, pack: Packed) -> list[Item]:
        """All that the forward passes kept, and the head's gradient."""
        return [item for one in self._passes(pack) for item in [*one.kept(), *one.head()]]

    def reading(self) -> list[Item]:
        one = self._passes(self.load.largest)[0]
        items = [item for item in one.head() if item.name == "logits"]
        return [*items, one.copies()]

    def sampling(self) -> list[Item]:
        """`generate`: keys in float32 and values as computed, the weights' copies, some logits."""
        if self.kind != "hf" or not self.load.rows:
            return []
        shape, one = self.models.policy, self._passes(self.load.first)[0]
        rows = min(self.load.rows, ROWS)
        length = self.load.prompt + self.config.sampling.max_tokens
        a_layer = rows * length * shape.keys
        cache = shape.layers * a_layer * (FLOAT + one.width)
        logits = 6 * FLOAT * rows * shape.vocabulary
        head = Item(name="head", bytes=(one.width == 2) * 2 * shape.embedding, block=LARGE)
        return [
            Item(name="KV cache", bytes=cache, block=FLOAT * a_layer),
            Item(name="logits", bytes=logits, block=logits / 6),
            one.copies(),
            head,
        ]

    def merged(self) -> list[Item]:
        """Adapters are added to a copy of the weights."""
        copied = self.models.policy.projected if self.lora.rank else 0
        return [Item(name="merged weights", bytes=FLOAT * copied)]
