"""What a pack keeps for the backward pass, and what its head takes, in bytes.

Counted from the operations of a decoder layer under `align.attention` and `align.tiled`, and held
against `torch.autograd.graph.saved_tensors_hooks` on SmolLM2: within 2 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from align.config import Compute, Lora
from align.planner.load import Load
from align.planner.shape import Shape

CHUNK = 2**28  # bytes of logits that exist at once on a CPU (`align.tiled`)
COLUMNS = 16_384  # of the vocabulary that exist at once on a GPU (`align.logprobs`)
FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class Item:
    """bytes in all, of tensors of which the largest has `block` bytes: the CPU's allocator gives
    large blocks back and keeps small ones.
    """

    name: str
    bytes: float
    block: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A backbone's forward and backward over a pack. adapters: of LoRA; head: whether tokens are
    scored, and by a head that learns.
    """

    shape: Shape
    load: Load
    compute: Compute
    lora: Lora
    gpu: bool
    scores_tokens: bool = True

    @property
    def width(self) -> int:
        """Bytes of a number that products of matrices are computed in."""
        return 2 if self.compute.precision == "bf16" else FLOAT

    def kept(self) -> list[Item]:
        """What the forward pass leaves behind."""
        load, layers = self.load, self.shape.layers
        if self.compute.gradient_checkpointing:
            inputs = layers * load.tokens * self.shape.hidden * FLOAT
            one = self._a_token() * load.tokens + self._attention()
            # The copies live as long as the forward pass; their holes are the backward pass's.
            kept = Item(name="activations", bytes=inputs + one, block=self._block())
            return [kept, self.copies()]
        return [
            Item(
                name="activations", bytes=layers * self._a_token() * load.tokens,
                block=self._block(),
            ),
            Item(
                name="attention", bytes=layers * self._attention(),
                block=self.shape.heads * load.longest**2 / 2 * self.width,
            ),
            self.copies(),
        ]  # fmt: skip

    def copies(self) -> Item:
        """Weights in the products' precision."""
        largest = max(a * b for _, a, b in self.shape.linears)
        return Item(name="bf16 weights", bytes=self._copies(), block=2 * largest)

    def head(self) -> list[Item]:
        """Logits, and a head's copy and gradient."""
        if not self.scores_tokens:
            return []
        shape, trained = self.shape, self.load.trained
        states = 2 * trained * shape.hidden * FLOAT
        copy = shape.embedding * 2 if self.width == 2 else 0
        learns = not self.lora.rank
        if self.gpu:
            logits = 2.0 * trained * min(COLUMNS, shape.vocabulary) * FLOAT
        else:
            logits = min(CHUNK, trained * shape.vocabulary * self.width)
        gradient = shape.embedding * (self.width + FLOAT if self.width == 2 else FLOAT) * learns
        return [
            Item(name="logits", bytes=logits + states, block=logits),
            Item(name="head", bytes=copy + gradient, block=shape.embedding * 2),
        ]

    def _copies(self) -> float:
        return 2 * self.shape.projected if self.width == 2 else 0

    def _block(self) -> float:
        return self.load.tokens * self.shape.inner * self.width

    def _a_token(self) -> float:
        """Of one layer. A norm keeps its input, and its result where its weight learns; each
        projection keeps its input, in bfloat16 a copy of its own; the MLP four products.
        """
        shape, width = self.shape, self.width
        norms = 2 * (FLOAT if self.lora.rank else 2 * FLOAT) * shape.hidden
        adapted = self.shape.adapted(self.lora) if self.lora.rank else []
        # In float32 a norm's result is what its projections share.
        copies = 5 * width if width == 2 else 2 * width
        inputs = copies * shape.hidden + width * shape.query
        middle = width * self.lora.rank * len(adapted)
        return norms + inputs + 4 * width * shape.inner + middle

    def _attention(self) -> float:
        """Of one layer: queries and results, keys and values, and on a CPU the weights."""
        shape, load = self.shape, self.load
        states = 2 * load.tokens * shape.query
        if self.gpu:
            return self.width * (states + 2 * load.tokens * shape.keys) + FLOAT * (
                load.tokens * shape.heads
            )
        return self.width * (states + 2 * load.read * shape.keys + shape.heads * load.pairs)
