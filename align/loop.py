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

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import set_seed
from torch import nn

from align.checkpoint import CheckpointError, Checkpoints, Log, Processes
from align.config import Training
from align.files import manifest
from align.files.pieces import PieceError
from align.processes.gather import gathered
from align.processes.preempt import Preempted, Preemption
from align.processes.sharding import settle
from align.rollout import EngineError, seed_of
from align.terminal.progress import Progress
from align.training.allocator import trim_unless_kept
from align.training.batch import Batch, Stage
from align.training.state import captured, put_back
from align.training.update import Update
from align.training.watch import Watch


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
        self.checkpoints = Checkpoints(
            folder / "checkpoints",
            keep=config.checkpoints.keep,
            processes=Processes(
                index=accelerator.process_index,
                gathered=partial(gathered, accelerator=accelerator),
            ),
        )
        self.update = Update(
            stage, config.optim, module=module, optimizer=optimizer, accelerator=accelerator
        )
        self.logs: dict[str, Log] = {}
        self.essence: dict[str, Any] = {}  # of the stage, on the process that writes it down
        if accelerator.is_main_process:
            self.essence = manifest.essence(folder)
            names = ("metrics", "samples", "watch")
            self.logs = {name: Log(folder / f"{name}.jsonl") for name in names}
        self.watch = Watch()
        self.progress = Progress(stage.steps, enabled=accelerator.is_main_process)

    def run(self, *, resume: bool) -> bool:
        """All steps that are left. Returns False if SIGTERM ended it early, after a checkpoint."""
        done = self._restore() if resume else 0
        self.progress.start(done, resumed=resume)
        for step in range(done + 1, self.stage.steps + 1):
            set_seed(seed_of(self.config.seed, "step", step) % 2**32, device_specific=True)
            begun = time.perf_counter()
            # Once what is sampled ahead is there.
            state = self.stage.state()
            waited = time.perf_counter() - begun
            try:
                # Ranks would part ways here: with several, SIGTERM waits for the step's end.
                with nullcontext() if self._many() else self.preemption.interruptible():
                    batch = self.stage.collect(step)
                    settle(self.module)
            except Preempted:
                self._save(step - 1, state)
                return False
            except EngineError as error:
                if error.shared or not self._many():  # else the others are not here
                    self._save(step - 1, state)
                raise
            metrics = batch.metrics | self._train(batch)
            if "seconds/sample" in metrics:
                metrics["seconds/sample"] += waited
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
                lr = self.update.share() * self.config.optim.lr
                loss, norm, metrics = self.update.step(packs, batch.columns, batch.held)
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

    def _many(self) -> bool:
        return self.accelerator.num_processes > 1

    def _preempted(self) -> bool:
        """Whether any rank got SIGTERM."""
        return any(gathered([self.preemption.asked], self.accelerator))

    def _log(self, step: int, metrics: dict[str, float], samples: list[dict[str, Any]]) -> None:
        row = {"step": step, "steps": self.stage.steps, "time": round(time.time(), 3)} | metrics
        rows = gathered(samples, self.accelerator)
        warnings = self.watch.see(row)
        samples = [{"step": step} | sample for sample in rows]
        written = {"metrics": [row], "samples": samples, "watch": warnings}
        for name, log in self.logs.items():
            log.write(written[name])
        self.progress.step(step, row)
        self.progress.warn(warnings)
        self.accelerator.log(metrics, step=step)

    def _save(self, step: int, stage_state: dict[str, Any]) -> None:
        main = self.accelerator.is_main_process
        pieces = captured(self.module, self.optimizer.optimizer, main=main)
        self.checkpoints.save(
            step,
            pieces,
            {
                "stage": stage_state,
                "optimizer_step": self.update.done,
                "pack_limit": self._limit(),
                "memory": self._memory(),
                "logs": {name: log.length() for name, log in self.logs.items()},
                "of": self.essence,
            },
        )
        trim_unless_kept()

    def _limit(self) -> int | None:
        """Tokens of the largest pack that every process still tries; None for any."""
        found = gathered([self.update.backward.limit], self.accelerator)
        return min((limit for limit in found if limit is not None), default=None)

    def _memory(self) -> dict[str, Any]:
        """What such a limit was found under, as far as a resumed run may change it."""
        compute = self.config.compute
        return {
            "token_budget": compute.token_budget,
            "gradient_checkpointing": compute.gradient_checkpointing,
        }

    def _restore(self) -> int:
        """Load the newest whole checkpoint; returns the step it was taken after, 0 for none."""
        found = self.checkpoints.newest(
            lambda stored: manifest.strange(stored.get("of", {}), self.essence)
        )
        lengths = found[1]["logs"] if found else {}
        for name, log in self.logs.items():
            log.cut(lengths.get(name, 0))
        if self.logs:
            self.watch.replay(self.logs["metrics"].rows())
        if found is None:
            return 0
        stored, about = found
        try:
            put_back(stored, self.module, self.optimizer.optimizer)
        except PieceError as error:
            raise CheckpointError(
                f"the checkpoint of step {about['step']} in {self.checkpoints.folder} is of "
                f"another model ({error}); delete the stage's folder to start it again"
            ) from error
        self.stage.load_state(about["stage"])
        self.update.done = about["optimizer_step"]
        if about.get("memory") == self._memory():
            self.update.backward.limit = about["pack_limit"]
        return about["step"]
