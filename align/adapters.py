"""Adapters on disk: a LoRA stage leaves them apart, beside the model with them added in.

OUT/STAGE/adapter/adapter.json          what they belong to: the base's folder and its weights' hash
OUT/STAGE/adapter/NAME/                 one each, in PEFT's own layout

So a later stage may stack its own on top, and a reward model may share the policy's base. A base
that is not the one they were trained on is refused: with it they would be another model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from align.config import Lora
from align.files.folder import identity, write_json
from align.modeling.lora import TRAINED, activate, active_adapters, adapted_layers, add_lora
from align.models import ModelError
from align.processes.sharding import whole

ABOUT = "adapter.json"
PREFIX = "base_model.model."  # what PEFT puts before a module's name


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """Those that a stage left. base: the folder or hub id of what they are added to; names: of
    each, the first put on first.
    """

    folder: Path
    base: str
    names: tuple[str, ...]


def beside(model_path: str) -> Path:
    """Where the stage that wrote this model left its adapters."""
    return Path(model_path).parent / "adapter"


def found(model_path: str) -> Adapters | None:
    """The adapters of the stage that wrote this model; None where it was trained in full.

    Raises ModelError where their base is gone or has other weights now.
    """
    folder = beside(model_path)
    if not (folder / ABOUT).is_file():
        return None
    about = json.loads((folder / ABOUT).read_text())
    if not Path(about["base"]).is_dir():
        raise ModelError(
            f"the adapters in {folder} were trained on {about['base']}, which is gone; put it "
            "back, or start from the merged model with --lora.base merge"
        )
    if identity(about["base"]) != about["weights"]:
        raise ModelError(
            f"the adapters in {folder} were trained on {about['base']}, which has other weights "
            "now; train them again, or start from the merged model with --lora.base merge"
        )
    return Adapters(folder=folder, base=about["base"], names=tuple(about["names"]))


def same(one: Path, other: Path) -> bool:
    """Whether two adapter folders hold the same adapter."""
    files = [folder / "adapter_model.safetensors" for folder in (one, other)]
    return one == other or files[0].read_bytes() == files[1].read_bytes()


def stacked(model_path: str) -> Adapters:
    """The adapters to stack on. Raises ModelError where there are none."""
    adapters = found(model_path)
    if adapters is None:
        raise ModelError(
            f"--lora.base stack: {model_path} has no adapters beside it, it was trained in full; "
            "use --lora.base merge"
        )
    return adapters


def beneath(lora: Lora, model_path: str) -> Adapters:
    """What a stage's own adapters go on: those to stack on and their base, or the input as it is.

    Raises ModelError where there are none to stack on.
    """
    if lora.base == "stack":
        return stacked(model_path)
    return Adapters(folder=beside(model_path), base=model_path, names=())


def save_adapters(
    model: PreTrainedModel, folder: Path | None, *, name: str, base: str, head: str = ""
) -> None:
    """Every active adapter; the one that was trained is called `name`, and goes with the layer
    `head`. folder: None on processes that only give what they hold of the weights.
    """
    if folder is None:
        for adapter in active_adapters(model):
            _state(model, adapter, head)
        return
    names: list[str] = []
    for adapter in active_adapters(model):
        wanted, count = name if adapter == TRAINED else adapter, 1
        while (free := wanted if count == 1 else f"{wanted}-{count}") in names:
            count += 1  # a stage stacked on one of its own name
        names.append(free)
        into = folder / names[-1]
        into.mkdir(parents=True, exist_ok=True)
        config = model.peft_config[adapter]
        own_head = head if adapter == TRAINED else ""
        config.modules_to_save = [own_head] if own_head else None
        config.base_model_name_or_path = base
        config.save_pretrained(into)
        save_file(_state(model, adapter, head), into / "adapter_model.safetensors")
    about = {"base": str(Path(base).resolve()), "weights": identity(base), "names": names}
    write_json(folder / ABOUT, about)


def put_on(model: PreTrainedModel, adapters: Adapters, *, name: str, active: bool) -> Tensor | None:
    """Load the adapter `name`, frozen. Returns the head that was trained with it, if there is one.

    Raises ModelError where it does not fit this model.
    """
    from peft import LoraConfig

    folder = adapters.folder / name
    config = LoraConfig.from_pretrained(folder)
    targets = config.target_modules
    target = targets if isinstance(targets, str) else ",".join(sorted(targets))
    lora = Lora(rank=config.r, alpha=config.lora_alpha, dropout=0.0, target=target)
    shared = bool(adapted_layers(model))  # else nothing was meant to train yet
    trained = {n for n, parameter in model.named_parameters() if parameter.requires_grad and shared}
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten at once
        add_lora(model, lora, name=name)
    state = load_file(folder / "adapter_model.safetensors")
    heads = [tensor for key, tensor in state.items() if "lora_" not in key]
    own = dict(model.named_parameters())
    with torch.no_grad():
        for key, tensor in state.items():
            if "lora_" not in key:
                continue
            mine = key.removeprefix(PREFIX).replace(".weight", f".{name}.weight")
            if mine not in own or own[mine].shape != tensor.shape:
                raise ModelError(f"the adapter in {folder} does not fit this model: no {mine}")
            own[mine].copy_(tensor)
    for parameter_name, parameter in own.items():
        parameter.requires_grad_(parameter_name in trained)
    if active:
        activate(model, [*active_adapters(model), name])
    return heads[0] if heads else None


def _state(model: PreTrainedModel, adapter: str, head: str) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names, with the trained one's head."""
    state = {
        PREFIX + name.replace(f".{adapter}.weight", ".weight"): tensor
        for name, tensor in model.named_parameters()
        if f".{adapter}." in name and "lora_" in name
    }
    if head and adapter == TRAINED:
        state[f"{PREFIX}{head}.weight"] = model.get_submodule(head).weight
    return {key: whole(tensor.detach()).contiguous().cpu() for key, tensor in state.items()}
