"""Log-probability and entropy of chosen tokens, from hidden states, without keeping a pack's logits.

`logprobs` runs TRL's chunked kernel (a [tokens, vocabulary] matrix of logits never exists); `naive_logprobs` is the
textbook form, kept as its twin for the tests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

CHUNK = 16_384  # vocabulary entries a tile


def logit_transform(config: PretrainedConfig) -> tuple[float, float | None]:
    """(scale, soft cap) that this architecture applies to its logits, e.g. Cohere and Granite, Gemma 2."""
    text = config.get_text_config()
    scale = getattr(text, "logit_scale", None)
    if scale is None and (divisor := getattr(text, "logits_scaling", None)) is not None:
        scale = 1 / divisor
    return (1.0 if scale is None else scale), getattr(text, "final_logit_softcapping", None)


def logprobs(
    hidden: Tensor,
    head: nn.Module,
    target: Tensor,
    *,
    temperature: float = 1.0,
    scale: float = 1.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """ln softmax(head(hidden) / temperature)[target] and the entropy of that distribution.

    hidden: [C, H]; target: LongTensor[C]. Returns two float32 Tensors [C]; natural logarithm.
    """
    bias = getattr(head, "bias", None)
    values = ChunkedLogProbFunction.apply(
        hidden, head.weight, bias, target, temperature, CHUNK, softcap, scale, ("entropy",)
    )
    return values[0], values[1]


def naive_logprobs(
    hidden: Tensor,
    head: nn.Module,
    target: Tensor,
    *,
    temperature: float = 1.0,
    scale: float = 1.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The same two quantities from the whole matrix of logits, in float32."""
    logits = head(hidden).float() * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    log_p = (logits / temperature).log_softmax(-1)
    chosen = log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return chosen, -(log_p.exp() * log_p).sum(-1)
