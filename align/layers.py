"""A student made of some of a model's decoder layers, evenly spread, the first and the last kept.

What DistilBERT (arXiv 1910.01108) starts a student from: half-trained rather than random, with the
teacher's tokenizer, embeddings and head. It needs training before it is of any use.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel


def kept_layers(layers: int, keep: int) -> list[int]:
    """Which of `layers` layers stay, `keep` of them; of a single one the first."""
    if keep == 1:
        return [0]
    return [round(i * (layers - 1) / (keep - 1)) for i in range(keep)]


def with_layers(model: PreTrainedModel, keep: int) -> PreTrainedModel:
    """A new model of `keep` of the decoder layers of `model`, the weights copied.

    Raises ValueError where there are not so many, or where layers differ in a way that the
    configuration does not say layer by layer.
    """
    layers = model.config.get_text_config().num_hidden_layers
    if not 0 < keep <= layers:
        raise ValueError(f"it has {layers} layers, of which {keep} cannot be kept")
    kept = kept_layers(layers, keep)
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # what is drawn is overwritten
        student = AutoModelForCausalLM.from_config(
            _shortened(model.config, kept), dtype=torch.float32
        )
    before = _stack(model, layers)
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(before):
            layer, _, rest = name.removeprefix(before).partition(".")
            if int(layer) not in kept:
                continue
            name = f"{before}{kept.index(int(layer))}.{rest}"
        state[name] = tensor
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"layers {kept} do not make a model of their own: {error}") from error
    student.generation_config = model.generation_config
    return student


def _shortened(config: PreTrainedConfig, kept: list[int]) -> PreTrainedConfig:
    """The configuration of the layers kept; lists with an entry a layer lose the others'."""
    config = copy.deepcopy(config)
    text: Any = config.get_text_config()
    layers = text.num_hidden_layers
    for name, value in vars(text).items():
        # By name too: two layers and two end tokens are no list of layers.
        a_layer = "layer" in name or "block" in name
        if a_layer and isinstance(value, list) and len(value) == layers:
            setattr(text, name, [value[i] for i in kept])
    text.num_hidden_layers = len(kept)
    return config


def _stack(model: PreTrainedModel, layers: int) -> str:
    """What the names of the decoder layers' weights begin with, such as `model.layers.`."""
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    ]
    if len(found) != 1:
        raise ValueError(f"its {layers} layers cannot be told from its other parts")
    return f"{found[0]}."
