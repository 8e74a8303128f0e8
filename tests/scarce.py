"""Memory that runs out inside a run, set up in its process before it starts."""

import json
import os
import resource
from pathlib import Path

import torch
from safetensors.torch import save_file

from align.backward import Backward


def little_memory(spare, file):
    """The process may take `spare` MiB more than it has at its first backward pass, 0 for as much
    as there is; the first step's gradient is written to `file`.
    """
    original = Backward.__call__

    def call(self, packs, fillers):
        first = not Path(file).exists()
        if first and spare:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + spare * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        sums = original(self, packs, fillers)
        if first:
            named = self.accelerator.unwrap_model(self.module).named_parameters()
            save_file({name: p.grad for name, p in named if p.grad is not None}, file)
            Path(file).with_suffix(".json").write_text(json.dumps([self.tried, self.limit]))
        return sums

    Backward.__call__ = call


def fail_once(rank, number):
    """On that rank, memory runs out in the forward pass of pack `number`, counted from 1."""
    if int(os.environ["RANK"]) != rank:
        return
    original, numbers = Backward._backward, iter(range(1, 10**9))

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def backward(self, one, *, synced):
        if next(numbers) != number:
            return original(self, one, synced=synced)
        hook = self.accelerator.unwrap_model(self.module).register_forward_pre_hook(fail)
        try:
            return original(self, one, synced=synced)
        finally:
            hook.remove()

    Backward._backward = backward
