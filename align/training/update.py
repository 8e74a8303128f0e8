"""One optimizer step: backward through every pack, guard, clip, step.

The loss of a pack is a sum with weights from counts over all ranks, so the gradient does not depend
on how tokens fall into packs or on which rank computes them.
"""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from align.config import Optim
from align.packing import Completion, Group, Pack, pack
from align.processes.gather import gathered
from align.training.backward import Backward
from align.training.batch import Stage
from align.training.optim import schedule


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not a number; nothing was changed by it."""


class Update:
    """Optimizer steps of `module` through `stage`; `done` counts them."""

    def __init__(
        self,
        stage: Stage,
        optim: Optim,
        *,
        module: nn.Module,
        optimizer: AcceleratedOptimizer,
        accelerator: Accelerator,
    ) -> None:
        self.stage = stage
        self.optim = optim
        self.module = module
        self.optimizer = optimizer
        self.accelerator = accelerator
        self.backward = Backward(stage, module=module, accelerator=accelerator)
        self.done = 0

    def step(
        self, packs: list[Pack], columns: tuple[str, ...], held: tuple[str, ...] = ()
    ) -> tuple[float, dict[str, float], dict[str, float]]:
        """Backward through every pack, then one step of the optimizer: loss, norms, metrics."""
        share = self.share()
        # Cut before they are counted: what a rank's limit makes of its packs is its own.
        packs = self.backward.cut(packs)
        most = max(gathered([len(packs)], self.accelerator))
        short = self.backward.missing(len(packs), most=most)
        sums = self.backward(packs, [filler(columns)] * short)
        self.done += 1
        if not most:  # nothing to learn anywhere: moments alone would move the weights
            return 0.0, dict.fromkeys(self._parts(), 0.0), {"tokens": 0.0}
        total = self._sum(sums)
        norms = self._guarded_norms(total["loss"])
        for group in self.optimizer.param_groups:
            group["lr"] = share * group.get("base_lr", self.optim.lr)
            if group.get("norm", "grad_norm") in held:
                # Of a gradient of zeros Adam would make a step of weight decay, and count it.
                for parameter in group["params"]:
                    parameter.grad = None
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total.pop("loss"), norms, total

    def _guarded_norms(self, loss: float) -> dict[str, float]:
        """Clip each part's gradient and return the norms; refuse to step on what is no number."""
        most = self.optim.max_grad_norm
        norms = {
            name: float(self.accelerator.clip_grad_norm_(parameters, most))
            for name, parameters in self._parts().items()
        }
        if all(math.isfinite(number) for number in (loss, *norms.values())):
            return norms
        said = ", ".join(f"{name} {norm}" for name, norm in norms.items())
        raise NonFiniteError(
            f"optimizer step {self.done}: loss {loss}, {said}; the weights "
            "are as they were. Lower --optim.lr"
        )

    def _parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters clipped together, by the name that their norm is logged under."""
        found: dict[str, list[nn.Parameter]] = {}
        for group in self.optimizer.param_groups:
            found.setdefault(group.get("norm", "grad_norm"), []).extend(group["params"])
        return found

    def share(self) -> float:
        """Of the learning rate, by the schedule, at the optimizer step to come."""
        total = self.stage.steps * self.stage.optimizer_steps
        return schedule(self.optim, self.done, total)

    def _sum(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Sums over ranks, in one reduction."""
        stacked = torch.stack([x.float().to(self.accelerator.device) for x in values.values()])
        summed = self.accelerator.reduce(stacked, reduction="sum").tolist()
        return dict(zip(values, summed, strict=True))


def filler(columns: tuple[str, ...]) -> Pack:
    """A pack that weighs nothing, for a rank that has fewer than the others."""
    completion = Completion(ids=[0], columns=dict.fromkeys(columns, 0.0))
    # Padded, which every model takes; two rows, which may be asked for as a pair.
    group = Group(prompt=[0], completions=[completion, completion])
    return pack([group], token_budget=4, padded=True)[0]
