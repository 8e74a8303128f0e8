"""How much memory a stage will want, roughly, from sizes alone."""

from __future__ import annotations

from transformers import PreTrainedModel

from align.config import Grpo, Stage

GIB = 2**30


def expected_memory(config: Stage, model: PreTrainedModel) -> str:
    """The parts in GiB on one process, and their sum; activations are the least certain."""
    total = model.num_parameters()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = {
        "weights": 4 * total,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "activations": _activations(config, model),
    }
    if isinstance(config, Grpo):
        if (config.beta or config.kl_every) and not config.lora.rank:
            parts["reference"] = 4 * total
        if config.engine.kind == "vllm":
            parts["vLLM"] = 2 * total + round(config.engine.cpu_cache * GIB)
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    return f"about {sum(parts.values()) / GIB:.1f} GiB a process ({listed})"


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
