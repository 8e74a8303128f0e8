"""The weights that both sides start from, and the gradients that they are compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn


@torch.no_grad()
def put_back(model: nn.Module, optimizer: Any, folder: str) -> None:
    """The weights in `folder` again, and an optimizer that has seen nothing."""
    parameters = dict(model.named_parameters())
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                if name in parameters:  # a tied head may be stored too
                    parameters[name].copy_(opened.get_tensor(name))
    getattr(optimizer, "optimizer", optimizer).state.clear()


def keep_gradient(model: nn.Module, optimizer: Any, file: str) -> None:
    """Write what the optimizer's next step goes along, clipped, by parameter name."""
    inner = getattr(optimizer, "optimizer", optimizer)

    def write(*_: Any) -> None:
        handle.remove()
        found = {
            name: p.grad.detach().float().cpu().contiguous()
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        save_file(found, file)

    handle = inner.register_step_pre_hook(write)


def distance(ours: str, theirs: str) -> float:
    """|ours - theirs| / |theirs| over all parameters as one vector. Raises ValueError where they
    are not of the same parameters.
    """
    one, other = load_file(ours), load_file(theirs)
    if one.keys() != other.keys():
        odd = sorted(one.keys() ^ other.keys())
        raise ValueError(f"gradients of different parameters: {', '.join(odd[:5])}")
    apart = sum(float((one[name] - other[name]).double().square().sum()) for name in other)
    whole = sum(float(other[name].double().square().sum()) for name in other)
    return (apart / whole) ** 0.5
