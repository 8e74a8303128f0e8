"""What a stage is besides its two functions, where there is nothing special to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from align import adapters, models
from align.config import Passes, Stage
from align.modeling.lora import lend_weights
from align.order import at
from align.packing import Group, Pack, pack
from align.stages.context import Context


class StageBase:
    """A stage that keeps nothing between steps, holds nothing, and exports its model."""

    steps: int
    optimizer_steps = 1
    head = ""  # a layer that trains beside the adapters

    def __init__(self, config: Stage, context: Context) -> None:
        self.config: Any = config
        self.context = context

    def prepare(self) -> None:
        """Work to be done before the first step, with the weights of the stage's input."""

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass

    def learned(self, metrics: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass

    def packed(self, groups: Iterable[Group], *, whole: bool = False) -> list[Pack]:
        """Laid out as the configuration and the model want it; see `align.packing.pack`."""
        return pack(
            groups, token_budget=self.token_budget(), padded=self.context.padded, whole=whole
        )

    def token_budget(self) -> int:
        return self.config.compute.token_budget

    def finish(self) -> None:
        """Work to be done after the last step, on every process, before the export."""

    def save(self, folder: Path | None) -> None:
        """The model as anyone loads it; under LoRA the adapters beside it. folder: None on
        processes that only give what they hold of the weights.
        """
        context, lora = self.context, self.config.lora
        if folder is None:
            lend_weights(context.model)
        else:
            models.save(context.model, context.tokenizer, folder)
        if lora.rank:
            adapters.save_adapters(
                context.model,
                None if folder is None else adapters.beside(str(folder)),
                name=self.config.name,
                base=adapters.beneath(lora, context.model_path).base,
                head=self.head,
            )


class PassStage(StageBase):
    """Epochs over rows in a seeded order; which come next follows from the step."""

    def __init__(self, config: Passes, context: Context, rows: Sequence[Any]) -> None:
        super().__init__(config, context)
        self.rows = rows
        self.total = max(1, round(config.epochs * len(rows)))
        self.steps = math.ceil(self.total / config.batch)

    def places(self, step: int) -> range:
        """Of the step's rows in the endless pass, all processes'."""
        first = (step - 1) * self.config.batch
        return range(first, min(first + self.config.batch, self.total))

    def row(self, place: int) -> int:
        """Which row comes at that place."""
        return at(place, len(self.rows), self.config.seed)
