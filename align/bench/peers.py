"""TRL's side: its own trainers in their own loop, held between two optimizer steps.

`Gate` is a callback. Where the loop is about to begin an optimizer step it waits for an order, and
the clock runs from there until the last optimizer step of that order is over. What the loop does
between steps (logging, the next batch) is then either inside, or before the answer is sent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, TrainerCallback

from align.bench.case import ENDLESS, LR, Case
from align.bench.weights import keep_gradient, put_back
from align.bench.wire import Channel
from align.training.meter import Meter


class Gate(TrainerCallback):
    """Holds the trainer's loop. steps: optimizer steps of one order; fresh: each order starts from
    the weights in `fresh` again.
    """

    def __init__(self, case: Case, channel: Channel, *, steps: int, fresh: str = "") -> None:
        self.case, self.channel = case, channel
        self.steps, self.fresh = steps, fresh
        self.left = 0
        self.meter = Meter(case.device)
        self.answer: dict[str, Any] = {}
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.more: dict[str, Any] = {}
        self.computed = 0

    def watch(self, trainer: Any) -> None:
        """Keep what the trainer's own functions return for loss and gradient norm, and count the
        tokens, padding too, that go through its model to be trained.
        """
        training_step, clip = trainer.training_step, trainer.accelerator.clip_grad_norm_

        def step(*args: Any, **kwargs: Any) -> Any:
            loss = training_step(*args, **kwargs)
            self.partial.append(loss.detach())
            return loss

        def clipped(*args: Any, **kwargs: Any) -> Any:
            self.norms.append(norm := clip(*args, **kwargs))
            return norm

        trainer.training_step, trainer.accelerator.clip_grad_norm_ = step, clipped
        self.partial: list[torch.Tensor] = []

        def count(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            if torch.is_grad_enabled():
                self.computed += kwargs["input_ids"].numel()

        trainer.model.register_forward_pre_hook(count, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if self.left:
            return
        self.channel.answer(**self.answer)
        order = self.channel.next()
        self.waited = self.channel.waited
        if order.get("gradient"):
            keep_gradient(parts["model"], parts["optimizer"], order["gradient"])
        if self.fresh:
            put_back(parts["model"], parts["optimizer"], self.fresh)
        self.left = self.steps
        self.losses, self.norms, self.partial, self.more = [], [], [], {}
        self.computed = 0
        self.meter.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.left -= 1
        self.losses.append(sum(self.partial))
        self.partial = []
        if not self.left:
            self.answer = self.meter.end() | {
                "losses": [float(loss) for loss in self.losses],
                "norms": [float(norm) for norm in self.norms],
                "computed": self.computed,
                "waited": self.waited,
                **self.more,
            }


class Peer:
    """A trainer behind a gate."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.tokenizer = AutoTokenizer.from_pretrained(case.model)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.fresh = ""
        self.steps = 1

    def serve(self, channel: Channel) -> None:
        gate = Gate(self.case, channel, steps=self.steps, fresh=self.fresh)
        trainer = self.trainer(gate)
        gate.watch(trainer)
        trainer.add_callback(gate)
        gate.answer |= self.opened()
        trainer.train()

    def trainer(self, gate: Gate) -> Any:
        raise NotImplementedError

    def opened(self) -> dict[str, Any]:
        """What is known before the first step."""
        return {}

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Of any TRL configuration. What is not here is at its default."""
        case, peer = self.case, self.case.peer
        return {
            "output_dir": str(Path(case.scratch) / "trl"),
            "max_steps": ENDLESS,
            "learning_rate": LR,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": peer.micro_batch,
            "gradient_checkpointing": peer.checkpointing,
            "bf16": case.precision == "bf16",
            "use_cpu": case.device == "cpu",
            "model_init_kwargs": {"dtype": "float32"},
            "report_to": [],
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
        } | more
