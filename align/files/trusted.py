"""What a model folder may hold that runs code when it is loaded: pickles, and Python of its own.

Weights are read from safetensors. Pickled ones are read where they are asked for by name
(`pickled:FOLDER`): as tensors and nothing else, once, into a folder of safetensors. Code that a
folder brings along runs only with --trust-remote-code, also where transformers would know better.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
READ = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # Hugging Face's layout
CONFIGURED = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)


class ModelError(RuntimeError):
    """A model that cannot be loaded or used as it is; the message says what to do."""


def pickles(folder: Path) -> list[str]:
    """Names of files that may be pickled weights."""
    return sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))


def readable(folder: Path) -> bool:
    """Whether its pickles are weights as transformers writes them."""
    return any((folder / name).is_file() for name in READ)


def own_code(folder: Path) -> str | None:
    """Where a model folder asks for code that is not transformers' own; None where it does not."""
    for name in CONFIGURED:
        for key, value in _entries(folder / name):
            if key == "auto_map" and value:
                return f"auto_map in {name}: {json.dumps(value)[:200]}"
            if key.endswith("attn_implementation") and "/" in str(value):  # a kernel from the hub
                return f"{key} in {name}: {value}"
    return None


def elsewhere(folder: Path) -> str | None:
    """The model that would be loaded in a folder's stead, as transformers does where it finds an
    adapter there; None for a folder that is a model.
    """
    found = dict(_entries(folder / "adapter_config.json"))
    return str(found.get("base_model_name_or_path")) if found else None


def check_code(path: str, *, trust_remote_code: bool) -> None:
    """Raises ModelError for a folder that is not a model on its own, or would run its own code."""
    folder = Path(path)
    if (base := elsewhere(folder)) is not None:
        raise ModelError(
            f"{path} holds an adapter of {base}, which would be loaded in its stead: merge the two "
            "(peft: merge_and_unload, save_pretrained) and give that folder"
        )
    if not trust_remote_code and (where := own_code(folder)):
        raise ModelError(
            f"{path} brings code of its own, which is not run ({where}): read it, then add "
            "--trust-remote-code True; or take the entry out, where transformers has the "
            "architecture itself"
        )


def _entries(file: Path) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON file, those of objects within objects included."""
    try:
        left = [json.loads(file.read_bytes())]
    except (OSError, ValueError):  # whoever loads it has the words
        return
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield from one.items()
            left += one.values()


def unpickle(source: Path, folder: Path) -> None:
    """Write a folder's pickled weights as safetensors, under their names, with all that is neither.

    Raises ModelError.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    index: dict[str, str] = {}
    size = 0
    for name in _weight_files(source):
        try:
            state = torch.load(source / name, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling raises whatever it trips over
            said = str(error).strip().partition("\n")[0]
            raise ModelError(f"{source / name} is not a file of tensors alone ({said})") from error
        if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
            raise ModelError(f"{source / name} does not hold tensors by name alone")
        target = f"{Path(name).stem}.safetensors".replace("pytorch_model", "model")
        # A copy each: tied weights share their memory, which safetensors does not write.
        tensors = {key: value.clone().contiguous() for key, value in state.items()}
        save_file(tensors, folder / target, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, target)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if set(index.values()) != {"model.safetensors"}:
        about = {"metadata": {"total_size": size}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(about))
    for path in source.iterdir():
        if path.is_file() and path.name not in (*pickles(source), *READ):
            shutil.copy(path, folder)


def _weight_files(folder: Path) -> list[str]:
    whole, index = READ
    if (folder / whole).is_file():
        return [whole]
    try:
        names = set(json.loads((folder / index).read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / index} names no files") from error
    if strange := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise ModelError(f"{folder / index} names files outside the folder: {strange[0]}")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError(f"{folder / missing[0]} is missing")
    return sorted(names)
