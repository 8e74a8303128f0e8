"""AdamW and the learning-rate schedule, a pure function of the optimizer step."""

from __future__ import annotations

import math

import torch
from torch import nn

from align.config import Optim


def learning_rate(optim: Optim, step: int, total: int) -> float:
    """The rate of optimizer step `step` (0-based) of `total`: linear warm-up, then the schedule."""
    warmup = optim.warmup * total
    if step < warmup:
        return optim.lr * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1.0, total - warmup)
    if optim.schedule == "cosine":
        return optim.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if optim.schedule == "linear":
        return optim.lr * (1 - min(1.0, share))
    return optim.lr


def adamw(policy: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices alone, not on norms and biases."""
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps)
