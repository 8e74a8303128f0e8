"""A model's sizes, counted from its config.json: what its layers hold and how wide they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.config import Lora

# Decoders whose layers are four projections, a gated MLP and two norms. The value says which
# projections have a bias where the configuration does not.
KNOWN = {"llama": "", "mistral": "", "smollm3": "", "qwen2": "qkv", "qwen3": ""}


class ShapeError(ValueError):
    """Sizes that cannot be told; the message says what to give instead."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """hidden, inner: widths of the residual stream and of the MLP. linears: (in, out) of a layer's
    projections, by name. others: numbers in a layer besides (norms, biases).
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    positions: int
    linears: tuple[tuple[str, int, int], ...]
    others: int

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads; values are as wide."""
        return self.kv_heads * self.head_dim

    @property
    def projected(self) -> int:
        """Numbers in all layers' projections."""
        return self.layers * sum(a * b for _, a, b in self.linears)

    @property
    def embedding(self) -> int:
        """Numbers in the embedding, and as many in a head of its own."""
        return self.vocabulary * self.hidden

    @property
    def trunk(self) -> int:
        """All but the head."""
        return self.embedding + self.projected + self.layers * self.others + self.hidden

    @property
    def parameters(self) -> int:
        """A causal language model's."""
        return self.trunk + (0 if self.tied else self.embedding)

    @property
    def classifier(self) -> int:
        """A reward model's or critic's: one score for a head."""
        return self.trunk + self.hidden

    def adapters(self, lora: Lora) -> int:
        """Numbers in the adapters that `lora` puts on."""
        return lora.rank * self.layers * sum(a + b for _, a, b in self.adapted(lora))

    def adapted(self, lora: Lora) -> list[tuple[str, int, int]]:
        """The projections of a layer that get adapters. Raises ShapeError where there are none."""
        names = [name.strip() for name in lora.target.split(",")]
        every = lora.target == "all-linear"
        found = [one for one in self.linears if every or one[0] in names]
        if not found:
            raise ShapeError(
                f"--lora.target {lora.target} names none of the layers "
                f"{', '.join(name for name, _, _ in self.linears)}"
            )
        return found

    def of_layers(self, keep: int) -> Shape:
        """The same model with `keep` of its layers. Raises ShapeError where there are fewer."""
        if not 0 < keep <= self.layers:
            raise ShapeError(f"layers:{keep}: the model has {self.layers} layers")
        return dataclasses.replace(self, layers=keep)


def shape(config: Mapping[str, Any], *, name: str) -> Shape:
    """name: how messages call the model. Raises ShapeError for an architecture that is not known,
    and for a configuration that does not tell its sizes.
    """
    text = config.get("text_config") or config
    kind = str(text.get("model_type", ""))
    if kind not in KNOWN:
        raise ShapeError(
            f"{name} is a {kind or 'model without model_type'}, whose layers the planner does not "
            f"know; it knows {', '.join(KNOWN)}. Plan with the config.json of a model as large: "
            "--config FILE"
        )
    try:
        hidden, inner, layers, heads, vocabulary = (
            int(text[key])
            for key in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "vocab_size",
            )
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShapeError(f"the config.json of {name} does not tell its sizes: {error}") from error
    kv_heads = int(text.get("num_key_value_heads") or heads)
    width = int(text.get("head_dim") or hidden // heads)
    query, keys = heads * width, kv_heads * width
    biased = text.get("attention_bias", False)
    biases = query + 2 * keys if biased or KNOWN[kind] else 0
    biases += hidden if biased and kind not in ("qwen2",) else 0
    biases += 2 * inner + hidden if text.get("mlp_bias", False) else 0
    return Shape(
        layers=layers,
        hidden=hidden,
        inner=inner,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        vocabulary=vocabulary,
        tied=bool(text.get("tie_word_embeddings", False)),
        positions=int(text.get("max_position_embeddings") or 0),
        linears=(
            ("q_proj", hidden, query),
            ("k_proj", hidden, keys),
            ("v_proj", hidden, keys),
            ("o_proj", query, hidden),
            ("gate_proj", hidden, inner),
            ("up_proj", hidden, inner),
            ("down_proj", inner, hidden),
        ),
        others=2 * hidden + biases + (2 * width if kind == "qwen3" else 0),
    )
