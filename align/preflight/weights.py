"""The weight files held against the architecture in config.json, without loading them: what is
missing, of another shape, not a finite number; and how many parameters there are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from align.config import Ppo, Training
from align.modeling.lora import add_lora
from align.preflight.subject import Subject
from align.terminal.findings import Findings
from align.terminal.quiet import quiet

READ = 8 * 2**30  # bytes of weights that are looked at for what is no number
LFS = b"version https://git-lfs"
LAYER = re.compile(r"\.(\d+)\.")
# Stored by some, and computed anew or read elsewhere: positions, masks, the tied or replaced head.
BUFFERS = ("inv_freq", "masked_bias", "attn.bias", "position_ids", "lm_head.weight")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Parameters of the stage's input, and of everything that the stage trains."""

    whole: int
    trained: int


def check(subject: Subject, found: Findings) -> Size:
    """Of a model whose class cannot be made without its weights, what the files say."""
    whole = _stored(subject.path, found)
    if whole is None:
        return Size(whole=0, trained=0)
    model = _outline(subject, found)
    if model is None:
        return Size(whole=whole, trained=whole)
    whole = sum(p.numel() for p in model.parameters())
    _finite(subject.path, found)
    trained = whole
    if isinstance(subject.config, Training) and subject.config.lora.rank:
        trained = _adapted(subject, model, found)
    if isinstance(subject.config, Ppo) and subject.config.critic == "separate":
        trained += whole
    return Size(whole=whole, trained=trained)


def _outline(subject: Subject, found: Findings) -> nn.Module | None:
    """The model without storage, its names and shapes compared with the files'."""
    scores = subject.config.writes == "scorer"
    family: Any = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    options: dict[str, Any] = {"num_labels": 1} if scores else {}
    if not sorted(Path(subject.path).glob("*.safetensors")):
        return None
    try:
        with quiet("transformers"):
            model, about = family.from_pretrained(
                subject.path,
                device_map="meta",
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=subject.config.trust_remote_code,
                **options,
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        found.error("weights", f"the model in {subject.path} cannot be loaded: {error}",
                    "give another with --model FOLDER")  # fmt: skip
        return None
    missing = sorted(name for name in about["missing_keys"] if not name.startswith("score."))
    other = [name for name, *_ in about["mismatched_keys"] if not name.startswith("score.")]
    for names, what in (
        (missing, "are not in its weight files"),
        (other, "have another shape there"),
    ):
        if names:
            found.error(
                "weights",
                f"{len(names):,} tensors of the architecture in {subject.path}/config.json {what}, "
                f"such as {names[0]}: they would be drawn at random",
                "put the config.json that belongs to the weights there, or give another --model",
            )
    _left_over(subject, found, model, sorted(about["unexpected_keys"]))
    return model


def _left_over(subject: Subject, found: Findings, model: nn.Module, names: list[str]) -> None:
    """Stored tensors that the architecture has no place for."""
    names = [name for name in names if not name.endswith(BUFFERS)]
    if not names:
        return
    # What is another layer of a kind that there is: config.json says fewer than there are.
    kinds = {LAYER.sub(".N.", name, count=1) for name, _ in model.named_parameters()}
    layers = [name for name in names if LAYER.sub(".N.", name, count=1) in kinds]
    said = (
        f"{len(layers or names):,} tensors in {subject.path} have no place in the architecture of "
        f"its config.json and would not be read, such as {(layers or names)[0]}"
    )
    if layers:
        config = subject.model_config.get_text_config()
        depth = getattr(config, "num_hidden_layers", "fewer")
        found.error(
            "weights",
            f"{said}: num_hidden_layers is {depth} there, and more are stored",
            "put the config.json that belongs to the weights there, or take layers away with "
            "--model layers:N:FOLDER",
        )
    else:
        found.warning("weights", said, "is config.json that of these weights?")


def _adapted(subject: Subject, model: nn.Module, found: Findings) -> int:
    """Parameters of the adapters. An error where they go nowhere."""
    lora = subject.config.lora
    linear = {
        name.rpartition(".")[2] for name, one in model.named_modules() if isinstance(one, nn.Linear)
    }
    known = ", ".join(sorted(linear - {"lm_head", "score"}))
    modules = [name for name, _ in model.named_modules()]
    targets = [] if lora.target == "all-linear" else lora.target.split(",")
    nowhere = [
        target
        for target in targets
        if not any(name == target or name.endswith(f".{target}") for name in modules)
    ]
    if nowhere:
        found.error(
            "adapters",
            f"--lora.target {lora.target}: no module of {subject.path} is called "
            f"{' or '.join(repr(target) for target in nowhere)}",
            f"its linear ones are {known}; --lora.target all-linear takes them all",
        )
        return 0
    try:
        add_lora(model, lora, head="score" if subject.config.writes == "scorer" else "")
    except ValueError as error:
        found.error(
            "adapters", f"--lora.target {lora.target}: {error}", f"its linear ones: {known}"
        )
        return 0
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _finite(path: str, found: Findings) -> None:
    """Weights that are NaN or infinite: whatever is computed with them is, too."""
    left = READ
    for file in sorted(Path(path).glob("*.safetensors")):
        left -= file.stat().st_size
        if left < 0:
            return
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (no mapping)
                tensor = opened.get_tensor(name)
                # A sum is not finite where a part is not; it is one pass over the memory.
                if not tensor.is_floating_point() or torch.isfinite(tensor.float().sum()):
                    continue
                if count := int((~torch.isfinite(tensor)).sum()):
                    found.error(
                        "weights",
                        f"{name} in {file} has {count:,} values that are NaN or infinite",
                        "the model is broken: take an earlier one, with --model FOLDER",
                    )
                    return


def _stored(path: str, found: Findings) -> int | None:
    """Parameters by the files' headers; None, and an error, where one cannot be read."""
    count = 0
    for file in sorted(Path(path).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            _unreadable(file, error, found)
            return None
        count += sum(math.prod(shape) for shape in shapes)
    return count


def _unreadable(file: Path, error: Exception, found: Findings) -> None:
    with file.open("rb") as opened:
        pointer = opened.read(len(LFS)) == LFS
    if pointer:
        found.error(
            "weights",
            f"{file} is a pointer of git-lfs, and not the weights themselves",
            f"git -C {file.parent} lfs pull",
        )
    else:
        found.error(
            "weights",
            f"{file} cannot be read ({error}): it was cut off or is no file of safetensors",
            "copy or download it once more, or give another model with --model FOLDER",
        )
