"""AdamW and the learning-rate schedule, a pure function of the optimizer step."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import nn

from align.config import Optim


def schedule(optim: Optim, step: int, total: int) -> float:
    """Share of the rate at optimizer step `step` (0-based) of `total`: linear warm-up, then the
    schedule.
    """
    warmup = optim.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    passed = min(1.0, (step - warmup) / max(1.0, total - warmup))
    if optim.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * passed))
    if optim.schedule == "linear":
        return 1 - passed
    return 1.0


def adamw(
    module: nn.Module, optim: Optim, *, critic: Collection[nn.Parameter] = (), critic_lr: float = 0
) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices alone, not on norms and biases.

    critic: parameters that go at `critic_lr`, and whose gradient is clipped apart from the others'.
    """
    apart = {id(parameter) for parameter in critic}
    groups = []
    for norm, rate in (("grad_norm", optim.lr), ("grad_norm/critic", critic_lr)):
        mine = [
            parameter
            for parameter in module.parameters()
            if parameter.requires_grad and (id(parameter) in apart) == (norm != "grad_norm")
        ]
        for parameters, decay in (
            ([p for p in mine if p.ndim >= 2], optim.weight_decay),
            ([p for p in mine if p.ndim < 2], 0.0),
        ):
            group = {"weight_decay": decay, "base_lr": rate, "norm": norm}
            groups.append({"params": parameters} | group)
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)
