"""What a checkpoint holds of the trained module and its optimizer, whole on every process."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer


def captured(module: nn.Module, optimizer: Optimizer, *, many: bool) -> dict[str, Any]:
    """Trained weights and the optimizer's state, by parameter name. many: of several processes."""
    options = _options(many)
    state = {"model": get_model_state_dict(module, options=options)}
    # Before the first step there are no moments, and asking for them would count a step.
    if optimizer.state:
        state["optimizer"] = get_optimizer_state_dict(module, optimizer, options=options)
    return state


def put_back(state: dict[str, Any], module: nn.Module, optimizer: Optimizer, *, many: bool) -> None:
    """Load what `captured` returned."""
    options = _options(many)
    set_model_state_dict(module, state["model"], options=options)
    if "optimizer" not in state:
        return
    set_optimizer_state_dict(module, optimizer, state["optimizer"], options=options)
    bare = module.module if isinstance(module, DistributedDataParallel) else module
    # It makes moments, one step old, for parameters that were held back and have none.
    for name, parameter in bare.named_parameters():
        if name not in state["optimizer"]["state"]:
            optimizer.state.pop(parameter, None)


def _options(many: bool) -> StateDictOptions:
    return StateDictOptions(
        full_state_dict=True, cpu_offload=many, ignore_frozen_params=True, strict=False
    )
