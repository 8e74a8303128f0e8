"""How much memory a stage will want, roughly, from sizes alone."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel

from align.config import Distill, Grpo, Ppo, Rollouts, Stage
from align.references import loading

GIB = 2**30


def expected_memory(config: Stage, module: Any) -> str:
    """The parts in GiB on one process, and their sum; activations are the least certain.

    module: what is trained, with a `model` inside, and a critic beside it in PPO.
    """
    model: PreTrainedModel = module.model
    base = model.num_parameters()
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    parts = {
        "weights": 4 * total,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "activations": _activations(config, model),
    }
    if isinstance(config, Rollouts):
        measured = config.kl_every if isinstance(config, Grpo) else isinstance(config, Ppo)
        if (config.beta or measured) and not config.lora.rank:
            parts["reference"] = 4 * base
        shared = isinstance(config, Ppo) and config.critic == "adapters"
        judges = {reward.model for reward in loading(config.reward)} if not shared else set()
        if judges:
            parts["reward models"] = sum(_on_disk(path) for path in judges)
    if isinstance(config, Distill):
        parts["teacher"] = 4 * _parameters(config.teacher)
    if isinstance(config, Rollouts | Distill) and config.engine.kind == "vllm":
        parts["vLLM"] = 2 * base + round(config.engine.cpu_cache * GIB)
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    return f"about {sum(parts.values()) / GIB:.1f} GiB a process ({listed})"


def _on_disk(path: str) -> int:
    return sum(file.stat().st_size for file in Path(path).glob("*.safetensors"))


def _parameters(path: str) -> int:
    """By the files' headers alone."""
    count = 0
    for file in Path(path).glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()
            count += sum(prod(opened.get_slice(name).get_shape()) for name in names)
    return count


def _activations(config: Stage, model: PreTrainedModel) -> int:
    """What one pack of the token budget keeps for the backward pass."""
    text = model.config.get_text_config()
    width = 2 if config.compute.precision == "bf16" else 4
    hidden, inner = text.hidden_size, getattr(text, "intermediate_size", 4 * text.hidden_size)
    # Norms and residuals, the attention's in- and outputs, the three products of a gated MLP.
    a_token = (10 * hidden + 4 * inner) * width
    layers = 1 if config.compute.gradient_checkpointing else text.num_hidden_layers
    kept = hidden * width * text.num_hidden_layers * config.compute.gradient_checkpointing
    return config.compute.token_budget * (a_token * layers + kept)
