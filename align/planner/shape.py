"""A model's sizes, counted from its config.json: what its layers hold and how wide they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from align.config import Lora


@dataclass(frozen=True, kw_only=True)
class Family:
    """Decoders whose layers are four projections, a gated MLP and two norms. biased: queries, keys
    and values have a bias whatever the configuration says; outputs: so may the attention's output.
    normed: queries and keys, each head or all of them together. fused: those that are read together
    are one projection. head, tied: a head's width (0: as the heads share the width out) and whether
    the embedding is the head, where the configuration does not say.
    """

    biased: bool = False
    outputs: bool = True
    normed: Literal["", "heads", "whole"] = ""
    fused: bool = False
    head: int = 0
    tied: bool = False


KNOWN = {
    "llama": Family(),
    "mistral": Family(),
    "smollm3": Family(tied=True),
    "qwen2": Family(biased=True, outputs=False),
    "qwen3": Family(normed="heads", head=128),
    "gemma": Family(head=256, tied=True),
    "granite": Family(),
    "olmo2": Family(normed="whole"),
    "olmo3": Family(normed="whole"),
    "phi3": Family(fused=True),
}


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
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    kind = str(text.get("model_type", ""))
    if kind not in KNOWN:
        raise ShapeError(
            f"{name} is a {kind or 'model without model_type'}, whose layers the planner does not "
            f"know; it knows {', '.join(KNOWN)}. Plan with the config.json of a model as large: "
            "--config FILE"
        )
    family = KNOWN[kind]
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
        kv_heads = int(text.get("num_key_value_heads") or heads)
        width = int(text.get("head_dim") or family.head or hidden // heads)
        positions = int(text.get("max_position_embeddings") or 0)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ShapeError(f"the config.json of {name} does not tell its sizes: {error}") from error
    if min(hidden, inner, layers, heads, vocabulary, kv_heads, width) < 1:
        raise ShapeError(f"the config.json of {name} has a size below 1")
    query, keys = heads * width, kv_heads * width
    biased = text.get("attention_bias", False)
    biases = query + 2 * keys if biased or family.biased else 0
    biases += hidden if biased and family.outputs else 0
    biases += 2 * inner + hidden if text.get("mlp_bias", False) else 0
    normed = {"": 0, "heads": 2 * width, "whole": query + keys}[family.normed]
    return Shape(
        layers=layers,
        hidden=hidden,
        inner=inner,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        vocabulary=vocabulary,
        tied=bool(text.get("tie_word_embeddings", family.tied)),
        positions=positions,
        linears=_linears(hidden, inner, query, keys, fused=family.fused),
        others=2 * hidden + biases + normed,
    )


def _linears(
    hidden: int, inner: int, query: int, keys: int, *, fused: bool
) -> tuple[tuple[str, int, int], ...]:
    back = (("o_proj", query, hidden), ("down_proj", inner, hidden))
    if fused:
        return (
            ("qkv_proj", hidden, query + 2 * keys),
            ("gate_up_proj", hidden, 2 * inner),
            *back,
        )
    return (
        ("q_proj", hidden, query),
        ("k_proj", hidden, keys),
        ("v_proj", hidden, keys),
        ("gate_proj", hidden, inner),
        ("up_proj", hidden, inner),
        *back,
    )
