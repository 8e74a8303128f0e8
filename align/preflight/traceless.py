"""What a trial must leave as it found it, put back: a run with one ends as a run without."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch
from torch import nn

import rewards
from align.training.shortage import give_back


@contextmanager
def untouched(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Afterwards nothing tells that something was computed inside: no gradients, every part in the
    mode it was in, the random states of torch, numpy and Python and the rewards' counts as before.

    What changes weights or an optimizer is not undone.
    """
    modes = {part: part.training for part in module.modules()}
    python, array = random.getstate(), numpy.random.get_state()
    counted = copy.deepcopy(rewards.core.totals)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for parameter in module.parameters():
            parameter.grad = None
        for part, training in modes.items():
            part.training = training
        random.setstate(python)
        numpy.random.set_state(array)
        rewards.core.totals.clear()
        rewards.core.totals.update(counted)
        give_back(device)
