"""The module that a stage trains, made from its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from align import models
from align.adapters import Adapters, beneath, put_on
from align.config import Distill, Ppo, RewardModel, Rollouts, Stage
from align.modeling.actor_critic import CRITIC, ActorCritic
from align.modeling.lora import add_lora
from align.modeling.policy import Policy
from align.modeling.scorer import Scorer
from align.modeling.student import Student
from align.vocabulary import check_same_tokenizer


def trained_module(
    config: Stage,
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: torch.device,
    critic_path: str | None = None,
) -> nn.Module:
    """A Policy, a Scorer for a reward model, an ActorCritic for PPO, a Student for distillation.

    critic_path: where PPO's separate critic starts; None is the stage's input.
    """
    if isinstance(config, RewardModel):
        return _scorer(config, path, tokenizer, device)
    policy = _policy(config, path, device)
    if isinstance(config, Distill):
        return Student(policy, beta=config.beta)
    if not isinstance(config, Ppo):
        return policy
    if config.critic == "separate":
        return ActorCritic(policy, scorer=_critic(config, path, critic_path, tokenizer, device))
    if config.critic == "adapters":
        add_lora(policy.model, config.lora, name=CRITIC)
    return ActorCritic(policy, adapter=config.critic == "adapters")


def frozen_policy(path: str, policy: Policy, *, trust_remote_code: bool) -> Policy:
    """The model in `path` to hold `policy` against, on its device, with its temperature and
    precision; nothing in it trains.
    """
    device = next(policy.parameters()).device
    model = models.load_causal_lm(path, device=device, trust_remote_code=trust_remote_code)
    frozen = Policy(model, temperature=policy.temperature, autocast=policy.autocast)
    return frozen.requires_grad_(False).eval()


def _policy(config: Stage, path: str, device: torch.device) -> Policy:
    below = beneath(config.lora, path)
    model = models.load_causal_lm(
        below.base, device=device, trust_remote_code=config.trust_remote_code
    )
    _adapt(config, model, below)
    _set_checkpointing(config, model)
    samples = isinstance(config, Rollouts)
    temperature = config.sampling.temperature if samples else 1.0
    return Policy(
        model,
        temperature=config.temperature if isinstance(config, Distill) else temperature,
        autocast=_autocast(config),
        entropy_gradient=samples and config.entropy != 0,
    )


def _scorer(
    config: Stage, path: str, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> Scorer:
    below = beneath(config.lora, path)
    model = models.new_classifier(
        below.base,
        tokenizer,
        device=device,
        seed=config.seed,
        trust_remote_code=config.trust_remote_code,
    )
    _adapt(config, model, below, head="score")
    _set_checkpointing(config, model)
    return Scorer(model, autocast=_autocast(config))


def _adapt(config: Stage, model: PreTrainedModel, below: Adapters, *, head: str = "") -> None:
    if not config.lora.rank:
        return
    for name in below.names:
        put_on(model, below, name=name, active=True)
    add_lora(model, config.lora, head=head)


def _critic(
    config: Ppo,
    path: str,
    critic_path: str | None,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Scorer:
    """A reward model's weights know already what earns a score; else a head of zeros."""
    options: dict[str, Any] = {"device": device, "trust_remote_code": config.trust_remote_code}
    if critic_path is not None:
        check_same_tokenizer(tokenizer, path=critic_path)
        model = models.load_classifier(critic_path, **options)
    else:
        model = models.new_classifier(path, tokenizer, seed=config.seed, **options)
        nn.init.zeros_(model.score.weight)
    _set_checkpointing(config, model)
    return Scorer(model, autocast=_autocast(config))


def _set_checkpointing(config: Stage, model: PreTrainedModel) -> None:
    if config.compute.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _autocast(config: Stage) -> torch.dtype | None:
    return torch.bfloat16 if config.compute.precision == "bf16" else None
