"""The weights that are measured: a model as it is, or random ones of a known shape; and the
arithmetic of a shape.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from align.bench.case import Case, completion_lengths
from align.bench.plan import Arguments
from align.files.locate import locate
from align.planner.find import MODELS

TOKENIZER = Path(__file__).resolve().parents[2] / "recipes" / "tiny_model"

# What a module needs besides the sizes that the planner knows; the token ids are those of the small
# tokenizer.
_MODULE: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SHAPES: dict[str, dict[str, Any]] = {
    name: MODELS[name] | _MODULE for name in ("qwen2.5-0.5b", "qwen2.5-1.5b")
}


def model_folder(arguments: Arguments, scratch: Path) -> str:
    """The folder that both sides load. Raises MissingError where there is none."""
    reference = arguments.model
    if arguments.shape:
        folder = scratch / arguments.shape
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(SHAPES[arguments.shape], indent=2))
        for file in TOKENIZER.glob("*"):
            if file.name != "config.json":
                shutil.copyfile(file, folder / file.name)
        reference = f"random:{folder}"
    from align.models import ready

    return ready(locate(reference, arguments.out, recipe="smollm2"))


def flops(config: dict[str, Any], case: Case) -> float:
    """Multiplications and additions, counted as two, of one update that computes every prompt and
    every completion once: 6 a weight and token (forward and backward), the head for completion
    tokens alone, and 12 x hidden x pairs of tokens for attention in each layer.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    keys = config.get("num_key_value_heads", heads) * width
    projections = hidden * (2 * heads * width + 2 * keys)
    layer = projections + 3 * hidden * config["intermediate_size"]
    lengths = completion_lengths(case.group)
    trained = case.prompts * sum(lengths)
    tokens = case.prompts * case.prompt + trained
    pairs = case.prompts * (
        case.prompt**2 / 2 + sum(one * case.prompt + one**2 / 2 for one in lengths)
    )
    head = hidden * config["vocab_size"] * trained
    return 6 * (layers * layer * tokens + head) + 12 * layers * heads * width * pairs
