"""A pack that does not fit in memory, cut in two.

The weights that a loss is added up with are global, so loss and gradient of a pack are the sums of
its halves'. What belongs together (a pair) stays so, a prompt is computed again only where a group
is cut, and the rest of a half is the rest of the pack, moved together.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from align.packing import PAD, Pack

# A border between prompts is taken if its larger half has at most this share of the pack's tokens;
# otherwise a group is cut, and its prompt computed twice.
UNEVEN = 0.75


def divisible(pack: Pack) -> bool:
    """Whether there is anything to cut between."""
    return pack.sequences > pack.together


def halves(pack: Pack) -> tuple[Pack, Pack]:
    """The pack's first sequences and its last ones, as even in tokens as can be.

    Raises ValueError for one that is not `divisible`.
    """
    if not divisible(pack):
        raise ValueError("a pack of one completion, or of one pair, cannot be cut")
    border = _border(pack)
    return _part(pack, 0, border), _part(pack, border, pack.sequences)


def divided(pack: Pack, most: int | None) -> Iterator[Pack]:
    """The pack in pieces of at most `most` tokens (None: whole), in order.

    What cannot be cut further is larger.
    """
    if most is None or pack.tokens <= most or not divisible(pack):
        yield pack
        return
    for half in halves(pack):
        yield from divided(half, most)


def _border(pack: Pack) -> int:
    """The first sequence of the second half."""
    own, prompt = _owners(pack)
    same = (prompt[1:] == prompt[:-1]).tolist()
    borders = range(pack.together, pack.sequences, pack.together)
    before, after = _padded_sizes(pack) if pack.padded else _packed_sizes(pack, own, prompt)
    larger = {border: max(before[border], after[border]) for border in borders}
    between = [border for border in borders if not same[border - 1]]
    best = min(between, key=larger.__getitem__, default=None)
    if best is None or larger[best] > UNEVEN * pack.tokens:
        best = min(borders, key=larger.__getitem__)
    return best


def _owners(pack: Pack) -> tuple[Tensor, Tensor]:
    """Each sequence's own segment and its prompt's, LongTensor[sequences] both."""
    return pack.segment.flatten()[pack.last], pack.prompt.flatten()[pack.last]


def _packed_sizes(pack: Pack, own: Tensor, prompt: Tensor) -> tuple[list[int], list[int]]:
    """Tokens before and from each sequence on, if cut there; index 0 .. sequences."""
    counts = torch.bincount(pack.segment.flatten().clamp(min=0))
    alone, shared, owner = counts[own].tolist(), counts[prompt].tolist(), prompt.tolist()
    new = [i == 0 or owner[i] != owner[i - 1] for i in range(len(owner))]
    added = [a + s * n for a, s, n in zip(alone, shared, new, strict=True)]
    before = [0, *accumulate(added)]
    repeated = [0 if n else s for s, n in zip(shared, new, strict=True)]
    after = [before[-1] - b + again for b, again in zip(before, [*repeated, 0], strict=True)]
    return before, after


def _padded_sizes(pack: Pack) -> tuple[list[int], list[int]]:
    """The same of rows padded to the longest of their half."""
    widths = (pack.segment != PAD).sum(1)[pack.last // pack.segment.shape[1]].tolist()
    before = [0, *(i * width for i, width in enumerate(accumulate(widths, max), 1))]
    after = [0, *(i * width for i, width in enumerate(accumulate(widths[::-1], max), 1))][::-1]
    return before, after


def _part(pack: Pack, first: int, end: int) -> Pack:
    """The sequences first .. end - 1 with their prompts, everything numbered anew."""
    own, prompt = _owners(pack)
    segments = torch.cat([own[first:end], prompt[first:end]]).unique()
    kept = torch.isin(pack.segment, segments)
    rows = kept.any(1)
    column = kept.cumsum(1) - 1
    width = int(column.max()) + 1
    row = (rows.cumsum(0) - 1)[:, None].expand_as(column)
    # Where each cell goes; those that stay behind are asked for by nobody.
    moved = (row * width + column).flatten()
    cells = moved[kept.flatten()]

    def grid(values: Tensor, fill: int) -> Tensor:
        made = values.new_full((int(rows.sum()) * width,), fill)
        made[cells] = values[kept]
        return made.view(-1, width)

    trained = (pack.sequence >= first) & (pack.sequence < end)
    return Pack(
        input_ids=grid(pack.input_ids, 0),
        position_ids=grid(pack.position_ids, 0),
        segment=grid(torch.searchsorted(segments, pack.segment), PAD),
        prompt=grid(torch.searchsorted(segments, pack.prompt), PAD),
        predictor=moved[pack.predictor[trained]],
        target=pack.target[trained],
        sequence=pack.sequence[trained] - first,
        last=moved[pack.last[first:end]],
        sequences=end - first,
        padded=pack.padded,
        together=pack.together,
        columns={name: values[trained] for name, values in pack.columns.items()},
    )
