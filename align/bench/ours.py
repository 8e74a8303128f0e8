"""Our side: what its cases have in common."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from align import models
from align.bench.case import Case
from align.bench.weights import keep_gradient
from align.bench.wire import Channel
from align.loop import Loop
from align.preflight.subject import longest
from align.probe import why_not_packed
from align.stages.context import Context
from align.stages.modules import trained_module
from align.training.meter import Meter
from align.training.optim import adamw


class Ours:
    """What all cases have: a module with its optimizer, as `align.stages.training` makes them."""

    def __init__(self, case: Case, config: Any) -> None:
        self.case, self.config = case, config
        self.meter = Meter(case.device)
        self.folder = Path(case.scratch) / "ours"
        self.accelerator = Accelerator(cpu=case.device == "cpu", mixed_precision="no")
        tokenizer = models.load_tokenizer(config.model)
        device = self.accelerator.device
        module = trained_module(config, config.model, tokenizer, device=device)
        reason = why_not_packed(module, longest=longest(config))
        if reason:
            raise RuntimeError(f"the model takes no packs ({reason}): nothing to compare")
        wrapped, self.optimizer = self.accelerator.prepare(module, adamw(module, config.optim))
        self.context = Context(
            accelerator=self.accelerator,
            module=wrapped,
            tokenizer=tokenizer,
            model_path=config.model,
            padded=False,
            folder=self.folder,
        )
        self.stage: Any = None

    def serve(self, channel: Channel) -> None:
        channel.answer(**self.opened())
        while True:
            order = channel.next()
            file = order.get("gradient")
            if file:
                keep_gradient(self.context.model, self.optimizer, file)
            channel.answer(**self.go(), waited=channel.waited)

    def opened(self) -> dict[str, Any]:
        """What is known before the first step."""
        return {}

    def go(self) -> dict[str, Any]:
        """One timing."""
        raise NotImplementedError

    def looped(self) -> list[dict[str, Any]]:
        """All steps of the stage in a loop of their own; the rows of its metrics."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        loop = Loop(
            self.stage,
            self.config,
            module=self.context.module,
            optimizer=self.optimizer,
            accelerator=self.accelerator,
            folder=self.folder,
        )
        loop.run(resume=False)
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]
