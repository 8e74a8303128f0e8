"""What a checkpoint holds of the trained module and its optimizer: of each process its own part.

Weights, buffers and moments, by name and place, so that any number of processes reads what any
other wrote. What does not change is left out: frozen weights come from the stage's input, rates
from its configuration.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from align.files.pieces import Piece, PieceError, Pieces, entire
from align.processes.sharding import let_go

WEIGHT, BUFFER, MOMENT = "weight/", "buffer/", "moment/"


def captured(module: nn.Module, optimizer: Optimizer, *, main: bool) -> dict[str, Piece]:
    """This process's part. main: whether it is the one that writes what all hold alike."""
    found: dict[str, Tensor] = {}
    bare = _bare(module)
    for name, parameter in _trained(bare):
        found[WEIGHT + name] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"{MOMENT}{key}/{name}"] = value
    # Buffers may be views of one another.
    found |= {BUFFER + name: buffer.detach().clone() for name, buffer in bare.named_buffers()}
    pieces = {name: _piece(tensor, main=main) for name, tensor in found.items()}
    return {name: piece for name, piece in pieces.items() if piece is not None}


@torch.no_grad()
def put_back(stored: Pieces, module: nn.Module, optimizer: Optimizer) -> None:
    """Load what processes had captured. Raises PieceError where it is of another module."""
    bare = _bare(module)
    trained = dict(_trained(bare))
    for name, parameter in trained.items():
        _fill(parameter, stored, WEIGHT + name)
    optimizer.state.clear()  # one that was held back has no moments
    for stored_name in stored.names(MOMENT):
        key, _, name = stored_name.removeprefix(MOMENT).partition("/")
        if name not in trained:
            raise PieceError(f"{name} is not trained here")
        parameter = trained[name]
        if stored.whole(stored_name) == tuple(parameter.shape):
            value = torch.zeros_like(parameter, requires_grad=False)
            _fill(value, stored, stored_name)
        else:  # a count of steps, which the fused kernel reads where the parameter is
            value = stored.read(stored_name, (), ()).to(parameter.device)
        optimizer.state[parameter][key] = value
    buffers = dict(bare.named_buffers())
    for stored_name in stored.names(BUFFER):
        name = stored_name.removeprefix(BUFFER)
        if name not in buffers:
            raise PieceError(f"{name} is not a buffer here")
        _fill(buffers[name], stored, stored_name)


def _bare(module: nn.Module) -> nn.Module:
    let_go(module)
    return module.module if isinstance(module, DistributedDataParallel) else module


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [one for one in module.named_parameters() if one[1].requires_grad]


def _piece(tensor: Tensor, *, main: bool) -> Piece | None:
    """What this process writes of a tensor; None for nothing."""
    if not isinstance(tensor, DTensor):
        return entire(tensor) if main else None
    local, start = _own(tensor)
    return Piece(tensor=local, start=start, whole=tuple(tensor.shape)) if local.numel() else None


def _fill(tensor: Tensor, stored: Pieces, name: str) -> None:
    if stored.whole(name) != tuple(tensor.shape):
        raise PieceError(f"{name} has another shape: {stored.whole(name)}")
    local, start = _own(tensor)
    if local.numel():
        local.copy_(stored.read(name, start, local.shape))


def _own(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The part of a tensor that lies on this process, and where in the tensor it begins."""
    if not isinstance(tensor, DTensor):
        return tensor, (0,) * tensor.ndim
    _, start = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return tensor.to_local(), tuple(start)
