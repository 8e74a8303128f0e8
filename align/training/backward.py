"""The gradient of a step's packs; where one does not fit in memory, of its halves instead.

An exception in the middle of a backward pass leaves parts of its gradient behind, added to those of
the packs before. So the step begins again: gradients away, the random state as it was, every pack
cut to at most the larger half of the one that failed. That limit holds for the rest of the run.

Several processes that hold all weights each (DDP) exchange gradients in the last backward pass
alone, that of a filler, a few tokens that weigh nothing: until then each cuts its own packs without
telling the others, who wait. What fails in the exchange cannot be repeated, nor can anything where
every layer is a collective (FSDP): there it is an error. Passes without gradient (a reference's
log-probs, values) need a fraction of this memory and are not cut: see
`align.training.shortage.named`.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from align.packing import Pack
from align.training.batch import Stage
from align.training.halving import divided, divisible, halves
from align.training.shortage import LESS, TooLargeError, give_back, is_shortage

logger = logging.getLogger(__name__)  # of every process, not the main one alone


@dataclass(frozen=True)
class _Failed:
    """A pack that did not fit. synced: while gradients were exchanged."""

    pack: Pack
    synced: bool


class Backward:
    """Adds up gradients of `module` through `stage`.

    limit: tokens of the largest pack that is still tried; None until one did not fit.
    """

    def __init__(self, stage: Stage, *, module: nn.Module, accelerator: Accelerator) -> None:
        self.stage = stage
        self.module = module
        self.accelerator = accelerator
        self.limit: int | None = None
        self.tried: list[int] = []  # tokens of the packs that did not fit
        self.sharded = any(isinstance(one, DTensor) for one in module.parameters())

    def cut(self, packs: list[Pack]) -> list[Pack]:
        """The packs in pieces of at most `limit` tokens."""
        return [piece for one in packs for piece in divided(one, self.limit)]

    def missing(self, own: int, *, most: int) -> int:
        """How many fillers a process with so many packs needs, where others have up to `most`."""
        if self.sharded:  # every pass is one of all processes
            return most - own
        many = self.accelerator.num_processes > 1
        return 1 if many and most else 0  # to exchange gradients

    def __call__(self, packs: list[Pack], fillers: list[Pack]) -> dict[str, Tensor]:
        """Leave the gradient in the parameters, which have none yet; return the sums of `loss` and
        the metrics over this process's packs. fillers: packs that weigh and count nothing.

        Raises TooLargeError for what does not fit and cannot be cut.
        """
        device = self.accelerator.device
        random = _random_state(device)
        while True:
            found = self._attempt(self.cut(packs), fillers)
            if not isinstance(found, _Failed):
                return found
            self._begin_again(found)
            _set_random_state(random, device)

    def _attempt(self, packs: list[Pack], fillers: list[Pack]) -> dict[str, Tensor] | _Failed:
        """Backward through all of them, or the one that stopped it."""
        device = self.accelerator.device
        sums = {"loss": torch.zeros((), device=device)}
        everything = packs + fillers
        for i, one in enumerate(everything):
            one = one.to(device)
            # Shares of a gradient are given away at once, or every process would hold all of it.
            synced = self.sharded or i == len(everything) - 1
            try:
                loss, metrics = self._backward(one, synced=synced)
            except (RuntimeError, MemoryError) as error:
                if not is_shortage(error):
                    raise
                # Returned, not raised: the half-made graph hangs on the exception's frames.
                return _Failed(one, synced and self.accelerator.num_processes > 1)
            metrics.setdefault("tokens", torch.tensor(float(len(one.target)), device=device))
            for name, value in {"loss": loss, **metrics}.items():
                counted = value.detach() if i < len(packs) else torch.zeros_like(value)
                sums[name] = sums.get(name, 0.0) + counted
        return sums

    def _backward(self, one: Pack, *, synced: bool) -> tuple[Tensor, dict[str, Tensor]]:
        with nullcontext() if synced else self.accelerator.no_sync(self.module):
            loss, metrics = self.stage.loss(one)
            # Data parallelism averages over ranks what is meant to be added.
            self.accelerator.backward(loss * self.accelerator.num_processes)
        return loss, metrics

    def _begin_again(self, failed: _Failed) -> None:
        """Lower the limit and clear up after what was computed of this step."""
        for parameter in self.module.parameters():
            parameter.grad = None
        give_back(self.accelerator.device)
        size = failed.pack.tokens
        many = self.accelerator.num_processes > 1
        who = f"rank {self.accelerator.process_index}: " if many else ""
        if failed.synced and not self.sharded:
            raise TooLargeError(f"{who}memory ran out while gradients were exchanged. {LESS}")
        if not divisible(failed.pack):
            raise TooLargeError(who + self._alone(failed.pack))
        half = max(one.tokens for one in halves(failed.pack))
        if self.sharded:
            raise TooLargeError(
                f"{who}a pack of {size:,} tokens does not fit in memory, and as the weights are "
                "shared out it could not be cut and tried again: --resume with "
                f"--compute.token-budget {half} or less. " + LESS
            )
        self.limit = half
        self.tried.append(size)
        if isinstance(self.module, DistributedDataParallel):
            # The step's first forward has sent the buffers; the other ranks do not wait for a
            # second time. After a whole forward without exchange it is the same.
            self.module.require_forward_param_sync = False
        logger.warning(
            f"{who}a pack of {size:,} tokens does not fit in memory: packs have at most {half:,} "
            f"from here on, and this optimizer step begins again. --compute.token-budget {half} "
            "has them so from the start"
        )

    def _alone(self, pack: Pack) -> str:
        own = "its completion" if pack.together == 1 else f"{pack.together} that go together"
        before = ", ".join(f"{size:,}" for size in self.tried)
        tried = f" (packs of {before} tokens did not fit and were cut)" if before else ""
        return f"a prompt and {own}, {pack.tokens:,} tokens, do not fit in memory{tried}. " + LESS


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Of the CPU's generator and the GPU's: dropout must fall as in a step that never failed."""
    on_cuda = device.type == "cuda"
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_cuda else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
