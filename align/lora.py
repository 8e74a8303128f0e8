"""Low-rank adapters: inserted in place, switched off for the reference, merged for export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from align.config import Lora


def add_lora(model: PreTrainedModel, lora: Lora) -> None:
    """Insert adapters in place; only they train afterwards."""
    from peft import LoraConfig, inject_adapter_in_model

    target: Any = lora.target if lora.target == "all-linear" else lora.target.split(",")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target,
        task_type="CAUSAL_LM",
    )
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is the one that the adapters were added to: the reference, for free."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight, adapters added in, tied ones under each of their names.

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
        if name in adapted:
            tensor = tensor + adapted[name].get_delta_weight("default").to(tensor.dtype)
        yield name.replace(".base_layer.", "."), tensor.detach()
