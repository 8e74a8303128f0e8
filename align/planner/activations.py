"""What a pack keeps for the backward pass, and what its head takes, in bytes.

Counted from the operations of a decoder layer under `align.modeling.attention` and
`align.modeling.tiled`, and held against `torch.autograd.graph.saved_tensors_hooks` on SmolLM2:
within 2 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from align.config import Compute, Lora
from align.planner.packs import Packed
from align.planner.shape import Shape

CHUNK = 2**28  # bytes of logits that exist at once on a CPU (`align.modeling.tiled`)
COLUMNS = 16_384  # of the vocabulary that exist at once on a GPU (`align.modeling.logprobs`)
FLOAT = 4
COPIES = "bf16 weights"
# With checkpointing a layer's forward pass leaves its input and its weights' copies among what is
# freed, and the next layer's find no room there: of what the layer would have kept.
HOLES = 0.18


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
    pack: Packed
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
        pack, layers = self.pack, self.shape.layers
        if self.compute.gradient_checkpointing:
            inputs = layers * pack.tokens * self.shape.hidden * FLOAT
            if not self.gpu:
                inputs += HOLES * layers * self._a_token() * pack.tokens
            one = self._a_token() * pack.tokens + self._attention()
            # The copies live as long as the forward pass; their holes are the backward pass's.
            kept = Item(name="activations", bytes=inputs + one, block=self._block())
            return [kept, self.copies()]
        return [
            Item(
                name="activations", bytes=layers * self._a_token() * pack.tokens,
                block=self._block(),
            ),
            Item(
                name="attention", bytes=layers * self._attention(),
                block=self.shape.heads * pack.longest**2 / 2 * self.width,
            ),
            self.copies(),
        ]  # fmt: skip

    def copies(self) -> Item:
        """Weights in the products' precision."""
        largest = max(a * b for _, a, b in self.shape.linears)
        return Item(name=COPIES, bytes=self._copies(), block=2 * largest)

    def head(self) -> list[Item]:
        """Logits, and a head's copy and gradient."""
        if not self.scores_tokens:
            return []
        shape, trained = self.shape, self.pack.trained
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
        return self.pack.tokens * self.shape.inner * self.width

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
        shape, pack = self.shape, self.pack
        states = 2 * pack.tokens * shape.query
        if self.gpu:
            return self.width * (states + 2 * pack.tokens * shape.keys) + FLOAT * (
                pack.tokens * shape.heads
            )
        return self.width * (states + 2 * pack.read * shape.keys + shape.heads * pack.pairs)
