"""Tensors on disk of which each process writes the piece that it holds, and any reads any piece.

A file is safetensors, so nothing is unpickled; its header's metadata says of each piece where in
its tensor it begins and how large that is. Readers map the files and touch the bytes they need.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

WHERE = "pieces"  # in the metadata


class PieceError(RuntimeError):
    """A tensor that the files do not hold, or not all of."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """start: the indices in a tensor of the size `whole` at which `tensor` begins."""

    tensor: Tensor
    start: tuple[int, ...]
    whole: tuple[int, ...]


def entire(tensor: Tensor) -> Piece:
    """The piece that is all of it."""
    return Piece(tensor=tensor, start=(0,) * tensor.ndim, whole=tuple(tensor.shape))


def write(path: Path, pieces: Mapping[str, Piece]) -> None:
    """On the CPU without a copy; what is on a GPU is copied first."""
    where = {name: [piece.start, piece.whole] for name, piece in pieces.items()}
    tensors = {name: piece.tensor.detach().cpu().contiguous() for name, piece in pieces.items()}
    save_file(tensors, path, metadata={WHERE: json.dumps(where)})


class Pieces:
    """What the files hold together."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [safe_open(path, framework="pt") for path in paths]
        self._where: dict[str, list[tuple[int, list[int], list[int]]]] = {}
        for i, file in enumerate(self._files):
            where = (file.metadata() or {}).get(WHERE)
            if where is None:
                raise PieceError(f"{paths[i]} does not say where its pieces begin")
            for name, (start, whole) in json.loads(where).items():
                self._where.setdefault(name, []).append((i, start, whole))

    def names(self, prefix: str = "") -> list[str]:
        """Of the tensors, with that beginning."""
        return [name for name in self._where if name.startswith(prefix)]

    def whole(self, name: str) -> tuple[int, ...]:
        """The size of a tensor."""
        return tuple(self._found(name)[0][2])

    def read(self, name: str, start: Sequence[int], shape: Sequence[int]) -> Tensor:
        """The part of a tensor that begins at `start` and has that shape. Raises PieceError where
        the files do not hold all of it.
        """
        found = self._found(name)
        if not shape:
            return self._files[found[0][0]].get_tensor(name)
        part: Tensor | None = None
        filled = 0
        for i, begin, _ in found:
            file = self._files[i].get_slice(name)
            lows = [max(a, b) for a, b in zip(start, begin, strict=True)]
            ends = zip(start, shape, begin, file.get_shape(), strict=True)
            highs = [min(a + n, b + m) for a, n, b, m in ends]
            if any(low >= high for low, high in zip(lows, highs, strict=True)):
                continue
            piece = file[_span(lows, highs, begin)]
            part = piece.new_empty(list(shape)) if part is None else part
            part[_span(lows, highs, start)] = piece
            filled += piece.numel()
        missing = torch.Size(shape).numel() - filled
        if missing or part is None:
            raise PieceError(f"{missing} numbers of {name} are missing")
        return part

    def _found(self, name: str) -> list[tuple[int, list[int], list[int]]]:
        if name not in self._where:
            raise PieceError(f"there is no {name}")
        return self._where[name]


def _span(lows: Sequence[int], highs: Sequence[int], origin: Sequence[int]) -> tuple[slice, ...]:
    """From `lows` to `highs`, counted from `origin`."""
    bounds = zip(lows, highs, origin, strict=True)
    return tuple(slice(low - at, high - at) for low, high, at in bounds)
