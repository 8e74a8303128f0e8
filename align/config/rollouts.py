"""Stages that learn from what they sample: GRPO and its relatives, PPO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from align.config.parts import Engine, Sampling, Training, require


@dataclass(frozen=True, kw_only=True)
class Rollouts(Training):
    """A rollout a step: completions are sampled, scored, and stepped along."""

    reward: Callable[..., Any]
    """A reward of `rewards`, a reward model, a weighted sum, or any function of TRL's protocol."""
    steps: int = 0
    """Steps (rollouts); 0: one pass over the data."""
    prompts: int = 16
    """Prompts a step, over all processes."""
    samples: int = 8
    """Completions a prompt."""
    engine: Engine = field(default_factory=Engine)
    sampling: Sampling = field(default_factory=Sampling)
    reduction: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "dapo"
    """Mean per sequence, per token of the minibatch, of the rollout, or over a constant length."""
    eps_low: float = 0.2
    eps_high: float = 0.28
    """Bounds of the ratio: 1 - eps_low .. 1 + eps_high (arXiv 2503.14476)."""
    entropy: float = 0.0
    """Weight of the entropy bonus; positive explores more."""
    minibatches: int = 1
    """Optimizer steps a rollout is cut into."""
    iterations: int = 1
    """Passes over a rollout."""
    importance: Literal["token", "sequence", "off"] = "token"
    """Truncated weights that correct the sampler's log-probs to the trainer's."""
    importance_cap: float = 2.0
    ahead: Literal[0, 1] = 0
    """1: the next rollout is sampled while this one trains, with the weights of one update before,
    for which `importance` corrects; needs --engine.kind server."""
    samples_logged: int = 0
    """Completions a step written to samples.jsonl; 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prompts", "samples", "minibatches", "iterations"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        require(self.steps >= 0, "steps", self.steps, "at least 0")
        require(0 <= self.eps_low <= 1, "eps-low", self.eps_low, "between 0 and 1")
        require(self.importance_cap > 0, "importance-cap", self.importance_cap, "above 0")
        sampling = self.sampling
        require(
            sampling.temperature > 0,
            "sampling.temperature",
            sampling.temperature,
            "above 0 to train: the likeliest token alone has nothing to compare",
        )
        # Both samplers renormalise over the tokens kept, so their log-probs mean something else.
        whole = sampling.top_p == 1 and sampling.top_k == 0
        require(
            whole or self.importance == "off",
            "importance",
            self.importance,
            "off where --sampling.top-p or --sampling.top-k cuts the distribution",
        )
        apart = self.engine.kind == "server" or not self.ahead
        require(apart, "ahead", self.ahead, "0 where --engine.kind is not server")
        corrected = self.importance != "off" or not self.ahead
        require(corrected, "ahead", self.ahead, "0 where --importance is off")


@dataclass(frozen=True, kw_only=True)
class Grpo(Rollouts):
    """GRPO (arXiv 2402.03300) and its relatives: policy gradient with a group baseline."""

    kind: ClassVar[str] = "grpo"

    name: str = "grpo"
    advantage: Literal["group", "leave-one-out", "reinforce++"] = "group"
    scale: Literal["group", "batch", "none"] = "group"
    """What a group advantage is divided by (none: Dr. GRPO, arXiv 2503.20783)."""
    objective: Literal["grpo", "gspo", "cispo"] = "grpo"
    """grpo: token-level clip; gspo: sequence-level ratio; cispo: clipped weight."""
    ratio_max: float = 5.0
    """cispo: the ratio's cap."""
    beta: float = 0.0
    """Weight of the k3 KL to the reference, which is the stage's input model."""
    kl_every: int = 0
    """At beta 0: steps between two measurements of that KL; 0 never measures and loads nothing."""
    mask_truncated: bool = False
    """Completions cut at max_tokens do not train."""
    refill: int = 0
    """Rounds of sampling that replace dead groups (all right or all wrong); 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.samples > 1, "samples", self.samples, "at least 2: a group is compared")
        for name in ("refill", "beta", "kl_every"):
            value = getattr(self, name)
            require(value >= 0, name.replace("_", "-"), value, "at least 0")
        require(self.ratio_max > 0, "ratio-max", self.ratio_max, "above 0")
        # Which groups are dead is known once they are scored: too late to sample others ahead.
        require(not (self.ahead and self.refill), "refill", self.refill, "0 where --ahead is 1")


@dataclass(frozen=True, kw_only=True)
class Ppo(Rollouts):
    """PPO-RLHF (arXiv 1707.06347, 2203.02155): a critic's baseline, a KL to the reference."""

    kind: ClassVar[str] = "ppo"

    name: str = "ppo"
    samples: int = 1
    eps_high: float = 0.2
    minibatches: int = 4
    iterations: int = 2
    objective: Literal["clip", "penalty"] = "clip"
    """clip: the clipped surrogate; penalty: -ratio x advantage + weight x KL to the old policy."""
    penalty: float = 1.0
    """penalty: that weight at the start; halved or doubled by `penalty_target`."""
    penalty_target: float = 0.01
    """penalty: KL to the old policy, nats a token, that the weight steers to; 0 leaves it."""
    kl: Literal["reward", "loss"] = "reward"
    """KL to the reference: k1 taken from every token's reward, or k3 added to its loss."""
    beta: float = 0.05
    """Weight of that KL; the reference is the stage's input model."""
    kl_target: float = 0.0
    """Nats a sequence that beta is halved or doubled towards; 0 leaves it. A policy that has not
    moved yet is below any target."""
    critic: Literal["separate", "shared", "adapters"] = "separate"
    """separate: a model of its own; shared: a head on the policy's trunk; adapters: LoRA adapters
    and a head on the policy's frozen base, one copy of it for all four roles."""
    critic_model: str = ""
    """separate: where the critic starts; default: the stage's input with a head of zeros."""
    critic_lr: float = 1e-5
    """Learning rate of what the critic has for itself."""
    critic_warmup: int = 0
    """Steps at the start that train the critic alone."""
    gamma: float = 1.0
    lam: float = 0.95
    """Discount, and the decay of the generalised advantage estimate (arXiv 1506.02438)."""
    whiten: bool = True
    """Advantages of a rollout to mean 0 and deviation 1."""
    value_weight: float = 0.5
    """Weight of the value loss; a separate critic does not feel it but through Adam's epsilon."""
    value_clip: float = 0.2
    """The new value is held this close to the old one; 0: no clipping."""
    truncated_penalty: float = 0.0
    """Taken from the reward of a completion that was cut at max_tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_0 = "beta penalty penalty_target kl_target value_clip truncated_penalty"
        for name in f"{at_least_0} critic_warmup critic_lr value_weight".split():
            value = getattr(self, name)
            require(value >= 0, name.replace("_", "-"), value, "at least 0")
        for name in ("gamma", "lam"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "between 0 and 1")
        require(
            not self.kl_target or self.beta > 0,
            "kl-target",
            self.kl_target,
            "0 where --beta is 0: there is nothing to double; give --beta a first value",
        )
        require(
            not self.steps or self.critic_warmup < self.steps,
            "critic-warmup",
            self.critic_warmup,
            f"below --steps {self.steps}, or the policy never trains",
        )
        shares = self.critic == "adapters"
        require(
            not shares or self.lora.rank > 0,
            "critic",
            self.critic,
            "given --lora.rank too, such as 16: all four roles on one base are adapters",
        )
        require(
            not (shares and self.compute.gradient_checkpointing),
            "compute.gradient-checkpointing",
            self.compute.gradient_checkpointing,
            "off where --critic is adapters: the second forward would find the other adapter on",
        )
        require(
            self.critic == "separate" or not self.critic_model,
            "critic-model",
            self.critic_model,
            'given as "" where --critic is not separate: there is no model of its own to start',
        )
