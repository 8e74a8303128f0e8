"""Low-rank adapters: inserted in place, several on one base, chosen by name, merged for export.

The policy's set is the one that is active at rest: the one being trained, called `default`, and
below it those of earlier stages where a recipe stacks them. Without `default` the model is the
stage's input, and so the reference.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from align.config import Lora
from align.processes.sharding import whole

TRAINED = "default"


def add_lora(model: PreTrainedModel, lora: Lora, *, name: str = TRAINED, head: str = "") -> None:
    """Insert adapters in place. Afterwards they alone train, with any put in before and the layer
    called `head`; active stay those that were, with `default` added.
    """
    from peft import LoraConfig, inject_adapter_in_model

    active = active_adapters(model)
    trained = {p for p, parameter in model.named_parameters() if parameter.requires_grad}
    first = not adapted_layers(model)
    target: Any = lora.target if lora.target == "all-linear" else lora.target.split(",")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target,
        exclude_modules=[head] if head else None,
        task_type="SEQ_CLS" if head else "CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # Several adapters on one model are what is wanted.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, model, adapter_name=name)
    for parameter_name, parameter in model.named_parameters():
        mine = f".{name}." in parameter_name or parameter_name == f"{head}.weight"
        parameter.requires_grad_(mine or (not first and parameter_name in trained))
    activate(model, [*active, name] if name == TRAINED else active)


def adapted_layers(model: PreTrainedModel) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def active_adapters(model: PreTrainedModel) -> list[str]:
    """Names of those added to the base at the moment."""
    layers = adapted_layers(model)
    return list(layers[0].active_adapters) if layers else []


@contextmanager
def using(model: PreTrainedModel, *names: str) -> Iterator[None]:
    """Inside, these adapters are added to the base, and no others."""
    before = active_adapters(model)
    activate(model, list(names))
    try:
        yield
    finally:
        activate(model, before)


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is the stage's input, to which `default` was added: the reference, for
    free.
    """
    with using(model, *[name for name in active_adapters(model) if name != TRAINED]):
        yield


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight, active adapters added in, tied ones under each of their
    names.

    Where processes hold a part of each, all of them have to ask; whole is one weight at a time.
    Merged out of place: adding an adapter and taking it away again would leave rounding behind.
    vLLM keeps its own head, so a tied head that is left out would stay at its old weights.
    """
    from peft.tuners.lora import LoraLayer

    adapted = {
        f"{name}.base_layer.weight": module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if "lora_" in name:
            continue
        tensor = whole(tensor.detach())
        if name in adapted:
            layer = adapted[name]
            for adapter in (one for one in layer.active_adapters if one in layer.lora_A):
                delta = whole(layer.get_delta_weight(adapter).detach())
                tensor = tensor + delta.to(tensor.dtype)
        yield name.replace(".base_layer.", "."), tensor


def lend_weights(model: PreTrainedModel) -> None:
    """Take part while another process goes through `merged_weights`."""
    for _ in merged_weights(model):
        pass


def activate(model: PreTrainedModel, names: list[str]) -> None:
    for layer in adapted_layers(model):
        # Not set_adapter, which also decides what trains.
        layer._active_adapter = names
