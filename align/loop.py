"""The one loop: collect, backward, guard, step, log, save. Every training stage runs in it.

A stage brings two functions. `collect(step)` returns the packs of the step's optimizer steps, cut
into minibatches, each trained token with its share of the mean (column `weight`, from counts over
all ranks), and `loss(pack)` returns a scalar that only has to be added up, with metrics as sums
over the pack's tokens (or pairs, see `Batch.unit`). Because the loss is a sum with global weights,
the gradient does not depend on how tokens fall into packs, minibatches' micro-batches or ranks.

Nothing random survives a step: each seeds its own generators from (seed, step, rank). So a
checkpoint between two steps is all that a resumed run needs to be bit-identical.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn

from align.checkpoint import Checkpoints, Log
from align.config import Training
from align.optim import schedule
from align.packing import Completion, Group, Pack, pack
from align.preempt import Preempted, Preemption
from align.progress import Progress
from align.rollout import seed_of
from align.state import captured, put_back
from align.watch import Watch


@dataclass(kw_only=True)
class Batch:
    """What one step trains on: minibatches of packs, this process's share of each.

    columns: names of the packs' columns. metrics: figures of the collection, equal on all ranks.
    samples: this process's rows for samples.jsonl. passes: how often the minibatches are gone
    through. unit: the metric of `loss` that counts what its others are means over. held: parts of
    the parameters, by the name that their norm is logged under, that these updates leave alone.
    """

    minibatches: list[list[Pack]]
    columns: tuple[str, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    passes: int = 1
    unit: str = "tokens"
    held: tuple[str, ...] = ()


class Stage(Protocol):
    """What the loop drives; see `align.stages` for the real ones."""

    steps: int
    """Steps of the whole run."""
    optimizer_steps: int
    """Optimizer steps a step, at most: the learning-rate schedule counts them."""

    def collect(self, step: int) -> Batch: ...

    def loss(self, pack: Pack) -> tuple[Tensor, dict[str, Tensor]]: ...

    def state(self) -> dict[str, Any]:
        """Plain values that the next `collect` depends on."""

    def load_state(self, state: dict[str, Any]) -> None: ...

    def learned(self, metrics: dict[str, float]) -> None:
        """Called after a step's last update with its metrics, equal on all ranks; `state` is asked
        afterwards.
        """

    def close(self) -> None:
        """Give back what the stage holds besides the trained module."""


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not a number; nothing was changed by it."""


class Loop:
    """Trains `module` through `stage`; module and optimizer come prepared by `accelerator`."""

    def __init__(
        self,
        stage: Stage,
        config: Training,
        *,
        module: nn.Module,
        optimizer: AcceleratedOptimizer,
        accelerator: Accelerator,
        folder: Path,
    ) -> None:
        self.stage = stage
        self.config = config
        self.module = module
        self.accelerator = accelerator
        self.preemption = Preemption()
        self.optimizer = optimizer
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=config.checkpoints.keep)
        self.optimizer_step = 0
        self.logs: dict[str, Log] = {}
        if accelerator.is_main_process:
            names = ("metrics", "samples", "watch")
            self.logs = {name: Log(folder / f"{name}.jsonl") for name in names}
        self.watch = Watch()
        self.progress = Progress(stage.steps, enabled=accelerator.is_main_process)

    def run(self, *, resume: bool) -> bool:
        """All steps that are left. Returns False if SIGTERM ended it early, after a checkpoint."""
        done = self._restore() if resume else 0
        self.progress.start(done)
        for step in range(done + 1, self.stage.steps + 1):
            set_seed(seed_of(self.config.seed, "step", step) % 2**32, device_specific=True)
            state = self.stage.state()
            try:
                # Ranks would part ways here: with several, SIGTERM waits for the step's end.
                with nullcontext() if self._many() else self.preemption.interruptible():
                    begun = time.perf_counter()
                    batch = self.stage.collect(step)
            except Preempted:
                self._save(step - 1, state)
                return False
            metrics = batch.metrics | self._train(batch)
            self.stage.learned(metrics)
            metrics["seconds/total"] = time.perf_counter() - begun
            self._log(step, metrics, batch.samples)
            every = self.config.checkpoints.every
            last = step == self.stage.steps
            # Asked once: a signal that reaches one rank while all save must not part them.
            stop = self._preempted()
            if stop or (every and step % every == 0 and not last):
                self._save(step, self.stage.state())
            if stop:
                return last
        return True

    def _train(self, batch: Batch) -> dict[str, float]:
        """Every optimizer step of a batch. Metrics are means over all, norms the largest."""
        begun = time.perf_counter()
        self.module.train()
        sums: dict[str, float] = {}
        losses, norms, lr = [], [], 0.0
        for _ in range(batch.passes):
            for packs in batch.minibatches:
                lr = self._share() * self.config.optim.lr
                loss, norm, metrics = self._optimizer_step(packs, batch.columns, batch.held)
                losses.append(loss)
                norms.append(norm)
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + value
        tokens = sums.pop("tokens")
        count = tokens if batch.unit == "tokens" else sums.pop(batch.unit, 0.0)
        means = {name: value / max(count, 1.0) for name, value in sums.items()}
        largest = {name: max(norm.get(name, 0.0) for norm in norms) for name in norms[0]}
        return means | largest | {
            "loss": sum(losses) / len(losses),
            "lr": lr,
            "tokens": tokens,
            "seconds/train": time.perf_counter() - begun,
        }  # fmt: skip

    def _optimizer_step(
        self, packs: list[Pack], columns: tuple[str, ...], held: tuple[str, ...] = ()
    ) -> tuple[float, dict[str, float], dict[str, float]]:
        """Backward through every pack, then one step of the optimizer: loss, norms, metrics."""
        share = self._share()
        most = max(gather_object([len(packs)])) if self._many() else len(packs)
        # Collective operations count on every rank doing the same number of backward passes.
        own = len(packs)
        packs = packs + [_filler(columns)] * (most - own)
        names: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.accelerator.device)
        for i, one in enumerate(packs):
            one = one.to(self.accelerator.device)
            synced = i == len(packs) - 1
            with nullcontext() if synced else self.accelerator.no_sync(self.module):
                loss, metrics = self.stage.loss(one)
                # Data parallelism averages over ranks what is meant to be added.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            total += loss.detach()
            trained = torch.tensor(float(len(one.target)), device=total.device)
            metrics.setdefault("tokens", trained)
            for name, value in metrics.items():
                counted = value.detach() if i < own else torch.zeros_like(value)
                names[name] = names.get(name, 0.0) + counted
        self.optimizer_step += 1
        if not packs:  # nothing to learn anywhere: moments alone would move the weights
            return 0.0, dict.fromkeys(self._parts(), 0.0), {"tokens": 0.0}
        sums = self._sum({"loss": total, **names})
        norms = self._guarded_norms(sums["loss"])
        for group in self.optimizer.param_groups:
            group["lr"] = share * group.get("base_lr", self.config.optim.lr)
            if group.get("norm", "grad_norm") in held:
                # Of a gradient of zeros Adam would make a step of weight decay, and count it.
                for parameter in group["params"]:
                    parameter.grad = None
        self.optimizer.step()
        self.optimizer.zero_grad()
        return sums.pop("loss"), norms, sums

    def _guarded_norms(self, loss: float) -> dict[str, float]:
        """Clip each part's gradient and return the norms; refuse to step on what is no number."""
        most = self.config.optim.max_grad_norm
        norms = {
            name: float(self.accelerator.clip_grad_norm_(parameters, most))
            for name, parameters in self._parts().items()
        }
        if all(math.isfinite(number) for number in (loss, *norms.values())):
            return norms
        said = ", ".join(f"{name} {norm}" for name, norm in norms.items())
        raise NonFiniteError(
            f"optimizer step {self.optimizer_step}: loss {loss}, {said}; the weights "
            "are as they were. Lower --optim.lr"
        )

    def _parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters clipped together, by the name that their norm is logged under."""
        found: dict[str, list[nn.Parameter]] = {}
        for group in self.optimizer.param_groups:
            found.setdefault(group.get("norm", "grad_norm"), []).extend(group["params"])
        return found

    def _share(self) -> float:
        """Of the learning rate, by the schedule, at the optimizer step to come."""
        total = self.stage.steps * self.stage.optimizer_steps
        return schedule(self.config.optim, self.optimizer_step, total)

    def _sum(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Sums over ranks, in one reduction."""
        stacked = torch.stack([x.float().to(self.accelerator.device) for x in values.values()])
        summed = self.accelerator.reduce(stacked, reduction="sum").tolist()
        return dict(zip(values, summed, strict=True))

    def _many(self) -> bool:
        return self.accelerator.num_processes > 1

    def _preempted(self) -> bool:
        """Whether any rank got SIGTERM."""
        asked = self.preemption.asked
        return any(gather_object([asked])) if self._many() else asked

    def _log(self, step: int, metrics: dict[str, float], samples: list[dict[str, Any]]) -> None:
        row = {"step": step, "steps": self.stage.steps, "time": round(time.time(), 3)} | metrics
        rows = gather_object(samples) if self._many() else samples
        warnings = self.watch.see(row)
        samples = [{"step": step} | sample for sample in rows]
        written = {"metrics": [row], "samples": samples, "watch": warnings}
        for name, log in self.logs.items():
            log.write(written[name])
        self.progress.step(step, row)
        self.progress.warn(warnings)
        self.accelerator.log(metrics, step=step)

    def _save(self, step: int, stage_state: dict[str, Any]) -> None:
        state = captured(self.module, self.optimizer.optimizer, many=self._many())
        if self.accelerator.is_main_process:
            self.checkpoints.save(
                step,
                state,
                {
                    "stage": stage_state,
                    "optimizer_step": self.optimizer_step,
                    "logs": {name: log.length() for name, log in self.logs.items()},
                },
            )
        self.accelerator.wait_for_everyone()

    def _restore(self) -> int:
        """Load the newest whole checkpoint; returns the step it was taken after, 0 for none."""
        found = self.checkpoints.newest()
        lengths = found[1]["logs"] if found else {}
        for name, log in self.logs.items():
            log.cut(lengths.get(name, 0))
        if self.logs:
            self.watch.replay(self.logs["metrics"].rows())
        if found is None:
            return 0
        state, manifest = found
        put_back(state, self.module, self.optimizer.optimizer, many=self._many())
        self.stage.load_state(manifest["stage"])
        self.optimizer_step = manifest["optimizer_step"]
        return manifest["step"]


def _filler(columns: tuple[str, ...]) -> Pack:
    """A pack that weighs nothing, for a rank that has fewer than the others."""
    completion = Completion(ids=[0], columns=dict.fromkeys(columns, 0.0))
    # Padded, which every model takes; two rows, which may be asked for as a pair.
    group = Group(prompt=[0], completions=[completion, completion])
    return pack([group], token_budget=4, padded=True)[0]
