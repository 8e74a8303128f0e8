"""What runs out inside a run, memory or its sampler, set up in its process before it starts."""

import json
import os
import platform
import resource
from pathlib import Path

import torch
from safetensors.torch import save_file

from align.rollout import EngineError
from align.rollout.hf import HfEngine
from align.stages.grpo import GrpoStage
from align.training.backward import Backward

BLOCK = 2**18  # bytes
HELD = []


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
            HELD.extend(_filled(spare))
        sums = original(self, packs, fillers)
        if first:
            named = self.accelerator.unwrap_model(self.module).named_parameters()
            save_file({name: p.grad for name, p in named if p.grad is not None}, file)
            Path(file).with_suffix(".json").write_text(json.dumps([self.tried, self.limit]))
        return sums

    Backward.__call__ = call


def _filled(spare):
    """All that the limit and the heap's holes leave, but for `spare` MiB."""
    blocks = []
    try:
        while True:
            blocks.append(torch.empty(BLOCK, dtype=torch.uint8))
    except RuntimeError:
        return blocks[: len(blocks) - spare * 2**20 // BLOCK]


def fail_once(rank, number, where):
    """On that rank, memory runs out in pack `number`, counted from 1: in its forward pass, or in
    the middle of its backward pass.
    """
    if int(os.environ["RANK"]) != rank:
        return
    original, numbers = Backward._backward, iter(range(1, 10**9))

    def backward(self, one, *, synced):
        if next(numbers) != number:
            return original(self, one, synced=synced)
        policy = self.accelerator.unwrap_model(self.module)
        first, *_, last = policy.model.model.layers

        def fail(*_):
            if where == "backward":  # gradients that must not count twice are there
                assert last.mlp.up_proj.weight.grad.abs().max() > 0
            raise torch.OutOfMemoryError("CUDA out of memory.")

        hooked = {
            "forward": policy.register_forward_pre_hook,
            "backward": first.register_full_backward_hook,
        }
        hook = hooked[where](fail)
        try:
            return original(self, one, synced=synced)
        finally:
            hook.remove()

    Backward._backward = backward


def fail_filling():
    """Memory runs out in the passes before the first update, which have no gradient."""

    def fill(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    GrpoStage.fill = fill


def sampler_gone(rank, call):
    """On that rank, sampling call number `call` finds no sampler."""
    if int(os.environ["RANK"]) == rank:
        original, calls = HfEngine.sample, iter(range(1, 10**9))

        def sample(self, requests):
            if next(calls) == call:
                raise EngineError("the sampler is gone")
            return original(self, requests)

        HfEngine.sample = sample


def other_libc():
    """No harm: a machine without glibc."""
    platform.libc_ver = lambda *_: ("", "")
