"""Tensors written in pieces are read in any others, and put back where they were; what is missing
is missed.
"""

import pytest
import torch
from torch import nn

from align.checkpoint import state_file
from align.config import Optim
from align.files.pieces import Piece, PieceError, Pieces, write
from align.training.optim import adamw
from align.training.state import captured, put_back


def _cut(tensor, starts):
    """Pieces of a matrix from each start row to the next; one without rows is not written."""
    ends = [*starts[1:], len(tensor)]
    return [
        Piece(tensor=tensor[a:b], start=(a, 0), whole=tuple(tensor.shape))
        for a, b in zip(starts, ends, strict=True)
        if b > a
    ]


@pytest.mark.parametrize("starts", [[0], [0, 4], [0, 1, 1, 5], [0, 3, 5, 6]])
def test_any_process_reads_any_piece_of_what_others_wrote(tmp_path, starts):
    tensor = torch.arange(21.0).view(7, 3)
    paths = []
    for i, piece in enumerate(_cut(tensor, starts)):
        paths.append(tmp_path / state_file(i))
        write(paths[-1], {"w": piece})
    stored = Pieces(paths)
    assert stored.whole("w") == (7, 3)
    for first in range(7):
        for last in range(first + 1, 8):
            read = stored.read("w", (first, 0), (last - first, 3))
            assert torch.equal(read, tensor[first:last])
    assert torch.equal(stored.read("w", (2, 1), (4, 2)), tensor[2:6, 1:])


def test_a_piece_that_nobody_wrote_is_missed(tmp_path):
    first, _, last = _cut(torch.arange(21.0).view(7, 3), [0, 3, 5])
    for i, piece in enumerate((first, last)):
        write(tmp_path / state_file(i), {"w": piece})
    stored = Pieces([tmp_path / state_file(i) for i in range(2)])
    with pytest.raises(PieceError, match="6 numbers of w are missing"):
        stored.read("w", (2, 0), (4, 3))
    with pytest.raises(PieceError, match="there is no v"):
        stored.read("v", (0, 0), (1, 3))


def _trained(path):
    """What a process wrote after one optimizer step, with its module."""
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = adamw(module, Optim())
    module(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    write(path, captured(module, optimizer, main=True))
    return module, Pieces([path])


def test_the_count_of_steps_lies_where_its_parameter_does(tmp_path):
    """The fused kernel of a GPU reads it there; here the parameters lie nowhere."""
    module, stored = _trained(tmp_path / state_file(0))
    module.to("meta")
    optimizer = adamw(module, Optim())
    put_back(stored, module, optimizer)
    for parameter in module.parameters():
        state = optimizer.state[parameter]
        assert {one.device.type for one in state.values()} == {"meta"}
        assert state["step"].shape == () and state["exp_avg"].shape == parameter.shape


def test_a_buffer_of_another_module_is_named(tmp_path):
    module, stored = _trained(tmp_path / state_file(0))
    module[1].num_batches_tracked = None
    with pytest.raises(PieceError, match=r"1\.num_batches_tracked is not a buffer here"):
        put_back(stored, module, adamw(module, Optim()))
