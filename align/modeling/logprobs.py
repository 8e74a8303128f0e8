"""Log-probability and entropy of chosen tokens, from hidden states.

The [tokens, vocabulary] matrix exists in pieces alone: on a CPU it is made and worked on in tiles,
at most 256 MiB of it kept for the backward pass (`align.modeling.tiled`); elsewhere TRL's kernel
goes over the vocabulary in chunks and its backward pass makes the logits again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from align.modeling.precision import computed_in
from align.modeling.tiled import TiledLogProbs, Transform

CHUNK = 16_384  # vocabulary entries that TRL's kernel takes at a time


def logit_transform(config: PretrainedConfig, temperature: float = 1.0) -> Transform:
    """What this architecture does to its logits (Cohere, Granite scale; Gemma 2 caps)."""
    text = config.get_text_config()
    scale = getattr(text, "logit_scale", None)
    if scale is None and (divisor := getattr(text, "logits_scaling", None)) is not None:
        scale = 1 / divisor
    return Transform(
        temperature=temperature,
        scale=1.0 if scale is None else scale,
        softcap=getattr(text, "final_logit_softcapping", None),
    )


def logprobs(
    hidden: Tensor,
    head: nn.Module,
    target: Tensor,
    transform: Transform,
    *,
    entropy: bool = True,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """ln softmax(transform(head(hidden)))[target] and the entropy of that distribution.

    hidden: [C, H]; target: LongTensor[C]. Returns two float32 Tensors [C]; natural logarithm. The
    entropy is differentiable if `entropy_gradient`, and empty without `entropy`.
    """
    form = tiled_logprobs if hidden.device.type == "cpu" else chunked_logprobs
    chosen, spread = form(
        hidden, head, target, transform, entropy=entropy, entropy_gradient=entropy_gradient
    )
    return chosen, spread if entropy_gradient else spread.detach()


def tiled_logprobs(
    hidden: Tensor,
    head: nn.Module,
    target: Tensor,
    transform: Transform,
    *,
    entropy: bool,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """As `logprobs`, on a CPU."""
    dtype = computed_in(hidden.device, hidden.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        return TiledLogProbs.apply(
            hidden,
            head.weight,
            getattr(head, "bias", None),
            target,
            dtype,
            transform,
            entropy,
            entropy_gradient,
            torch.is_grad_enabled(),
        )


def chunked_logprobs(
    hidden: Tensor,
    head: nn.Module,
    target: Tensor,
    transform: Transform,
    *,
    entropy: bool,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """As `logprobs`, by TRL's kernel, where the entropy's gradient costs nothing."""
    values = ChunkedLogProbFunction.apply(
        hidden,
        head.weight,
        getattr(head, "bias", None),
        target,
        transform.temperature,
        CHUNK,
        transform.softcap,
        transform.scale,
        ("entropy",) if entropy else (),
    )
    return values[0], values[1] if entropy else values[0].new_empty(0)


def whole_logits(hidden: Tensor, head: nn.Module, transform: Transform) -> Tensor:
    """The matrix itself, transformed, float32 [C, V]."""
    logits = head(hidden).float()
    # Each of these passes over the whole matrix costs as much as a layer; most models need none.
    if transform.scale != 1.0:
        logits = logits * transform.scale
    if transform.softcap is not None:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    return logits / transform.temperature if transform.temperature != 1.0 else logits
