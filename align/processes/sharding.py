"""Weights, gradients and moments shared out over processes (FSDP2), where accelerate is told to.

Each decoder layer is gathered for its own forward and backward pass and let go again; embeddings,
norms and heads, which are read from several places, are gathered together and kept until the next
backward pass. `fully_shard` is called here and not by accelerate, which shards on GPUs alone, by
the classes of a module that must be a `transformers` model itself.

A pass through the model waits for every process to go through it. Training passes are equal in
number everywhere (`align.training.update` sees to that); those without a gradient need not be: see
Lockstep.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel


class ShardingError(RuntimeError):
    """A way of sharding that is not supported; the message says what to write instead."""


def wanted(accelerator: Accelerator) -> bool:
    """Whether the launcher's configuration asks for FSDP. Raises ShardingError for what of it would
    go wrong. Before a model is loaded.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    # transformers would load weights on the first process alone, also of models that stay whole.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    asked = {name: os.environ.get(name, "").lower() for name in ("FSDP_VERSION", *UNSUPPORTED)}
    if asked.pop("FSDP_VERSION") != "2":
        raise ShardingError("FSDP in its first version: write fsdp_version: 2 in the accelerate "
                            "configuration (FSDP_VERSION=2 under torchrun)")  # fmt: skip
    for name in [name for name, value in asked.items() if value == "true"]:
        raise ShardingError(f"{name.lower()}: true is not supported; {UNSUPPORTED[name]}")
    return accelerator.num_processes > 1


UNSUPPORTED = {
    "FSDP_OFFLOAD_PARAMS": "shard over more GPUs instead",
    "FSDP_ACTIVATION_CHECKPOINTING": "use --compute.gradient-checkpointing true instead",
}


def shard(module: nn.Module, accelerator: Accelerator) -> None:
    """Share out the parameters of `module`, in place. The optimizer is made afterwards, of them."""
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    plugin = getattr(accelerator.state, "fsdp_plugin", None) or FullyShardedDataParallelPlugin()
    for layer in _layers(module):
        fully_shard(layer, mesh=mesh, reshard_after_forward=plugin.reshard_after_forward)
    root = fully_shard(module, mesh=mesh)
    # Else whichever part runs first would be the root, and parts are run alone: to sample, say.
    root._get_fsdp_state()._lazy_init()
    models = _models(root)
    for model in models:  # else `generate` would keep processes in step in a way of its own
        model._is_fsdp_managed_module = False
    root.lockstep = Lockstep(root, models, accelerator.device)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which processes may hold a part each; all of them have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def let_go(module: nn.Module) -> None:
    """Of what was gathered, which is out of date once the parts change, keep the own part alone."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def settle(module: nn.Module) -> None:
    """Before processes speak of anything else: take part in the others' passes until all are
    through. Nothing to do where the module is not sharded.
    """
    lockstep = getattr(module, "lockstep", None)
    if lockstep is not None:
        lockstep.wait()


class Lockstep:
    """Lets processes go through a sharded model in unlike numbers where no gradient is wanted.

    Before such a pass each says which part it enters: a backbone (a model without its head) or the
    root. Who has none left says 0, in `wait`, and goes along with one token, so that all gather the
    same. The highest number goes first.
    """

    def __init__(self, root: Any, models: Sequence[Any], device: torch.device) -> None:
        self.root = root
        self.device = device
        self.joining = False
        self.passed = False
        self.backbones = [model.base_model for model in models]
        for i, backbone in enumerate(self.backbones):
            backbone.register_forward_pre_hook(self._before(i + 1))
        # Ahead of the hook that gathers.
        root.register_forward_pre_hook(self._before(len(self.backbones) + 1), prepend=True)

    def wait(self) -> None:
        passed = False
        while entered := self._agreed(0):
            self._join(entered)
            passed = True
        if passed or self.passed:
            # The order of these passes, of which the next backward pass would gather ahead, is not
            # the same everywhere; and what they gathered may be out of date by then.
            self.root.reset_iter_state()
        self.passed = False

    def _before(self, number: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if not torch.is_grad_enabled() and not self.joining:
                while (entered := self._agreed(number)) != number:
                    self._join(entered)
                self.passed = True
            self.root.unshard()  # the heads, too, of a part that is run alone

        return hook

    def _agreed(self, number: int) -> int:
        """The part that is entered now: the highest number that was given, 0 if all wait."""
        entered = torch.tensor(number, device=self.device)
        dist.all_reduce(entered, dist.ReduceOp.MAX)
        return int(entered)

    @torch.no_grad()
    def _join(self, number: int) -> None:
        if number > len(self.backbones):
            self.root.unshard()
            return
        self.joining = True
        try:
            ids = torch.zeros((1, 1), dtype=torch.long, device=self.device)
            self.backbones[number - 1](input_ids=ids, use_cache=False)
        finally:
            self.joining = False


def _models(module: nn.Module) -> list[PreTrainedModel]:
    """Those with a head; their backbones are models, too."""
    found = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    return [one for one in found if one.base_model is not one]


def _layers(module: nn.Module) -> list[nn.Module]:
    """What `transformers` keeps in one piece: the entries of the models' stacks of layers."""
    names = {name for model in _models(module) for name in (model._no_split_modules or ())}
    stacks = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    return [layer for stack in stacks for layer in stack if type(layer).__name__ in names]
