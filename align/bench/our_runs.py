"""Runs of our loop: passes over rows, whole GRPO steps; and the sync alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align import models
from align.bench.case import ENDLESS, Case
from align.bench.configs import common, step_config, wake
from align.bench.our_update import OneUpdate
from align.bench.ours import Ours
from align.bench.rows import preference_rows, sft_rows
from align.bench.weights import put_back
from align.bench.wire import Channel
from align.config import Dpo, Optim, RewardModel, Sft
from align.files import cached
from align.modeling.lora import merged_weights
from align.packing import least_tokens
from align.rollout.build import build
from align.stages.grpo import GrpoStage
from align.stages.preference import PreferenceStage
from align.stages.reward_model import RewardModelStage
from align.stages.rolled import Rolled
from align.stages.sft import SftStage
from align.training.batch import Batch

PASSES: dict[str, tuple[Any, Any]] = {
    "dpo": (Dpo, PreferenceStage),
    "reward-model": (RewardModel, RewardModelStage),
    "sft": (Sft, SftStage),
}


def runner(case: Case) -> Any:
    kinds: dict[str, Any] = {"update": OneUpdate, "step": Steps, "sync": Syncs}
    return kinds.get(case.kind, Passes)(case)


class Passes(Ours):
    """A pass over rows in the real loop, from the same weights each time; DPO's reference too."""

    def __init__(self, case: Case) -> None:
        kind, stage = PASSES[case.kind]
        settings = common(case) | {"batch": case.batch, "max_tokens": case.max_tokens}
        settings |= {"optim": Optim(lr=1e-6)}
        if case.kind == "reward-model":
            settings |= {"model": _classifier(case), "holdout": 0.0}
        config = kind(**settings)
        super().__init__(case, config)
        rows = sft_rows(case) if case.kind == "sft" else preference_rows(case)
        self.stage = stage(config, self.context, rows)
        _write_ids(self.stage, case)

    def opened(self) -> dict[str, Any]:
        packs = [pack for step in self._steps() for pack in self._packs(step)]
        return {
            "tokens": sum(pack.tokens for pack in packs),
            "least": sum(_size(row) for row in self.stage.rows),
            "rows": len(self.stage.rows),
            "steps": self.stage.steps,
            "packs": len(packs),
        }

    def go(self) -> dict[str, Any]:
        put_back(self.context.model, self.optimizer, self.config.model)
        # What a run keeps between stages would make the second pass cheaper than the first.
        shutil.rmtree(cached.cache_folder().parent / "reference", ignore_errors=True)
        self.meter.begin()
        self.stage.prepare()
        rows = self.looped()
        return self.meter.end() | {
            "losses": [row["loss"] for row in rows],
            "norms": [row["grad_norm"] for row in rows],
        }

    def _steps(self) -> range:
        return range(1, self.stage.steps + 1)

    def _packs(self, step: int) -> list[Any]:
        if self.case.kind == "dpo":  # before there is a reference nothing can be collected
            groups = [self.stage.rows[self.stage.row(p)] for p in self.stage.places(step)]
            return self.stage.packed(groups, whole=True)
        return self.stage.collect(step).minibatches[0]


class Steps(Ours):
    """Whole GRPO steps in the real loop: sample, score, train, sync, and what is written of them.

    The loop is held where it asks for the next step's rollout, as TRL's is (`align.bench.peers`).
    """

    def __init__(self, case: Case) -> None:
        config = step_config(case)
        super().__init__(case, config)
        context = self.context
        engine = build(
            config.engine,
            sampling=config.sampling,
            path=config.model,
            model=context.model,
            stop=models.stop_tokens(context.tokenizer, config.model),
            sequences=config.prompts * config.samples,
            autocast=context.policy.autocast,
        )
        self.stage = GrpoStage(config, context, config.data.rows(), engine)
        self.idle_groups = 0.0
        wake(config)

    def serve(self, channel: Channel) -> None:
        collect, compare = self.stage.collect, self.stage.compare
        self.stage.steps = ENDLESS

        def held(step: int) -> Batch:
            done = self.meter.end() if step > 1 else {}
            channel.answer(**(done and self._figures(done) | {"waited": self.waited}))
            channel.next()
            self.waited = channel.waited
            self.meter.begin()
            return collect(step)

        def compared(groups: Sequence[Rolled]) -> None:
            compare(groups)
            self.idle_groups = sum(not any(one.advantages) for one in groups) / len(groups)

        self.stage.collect, self.stage.compare = held, compared
        self.looped()

    def _figures(self, done: dict[str, Any]) -> dict[str, Any]:
        row = json.loads((self.folder / "metrics.jsonl").read_text().splitlines()[-1])
        count = self.config.prompts * self.config.samples
        parts = {k.removeprefix("seconds/"): v for k, v in row.items() if k.startswith("seconds/")}
        del parts["total"]  # counts the waiting
        named = sum(parts[name] for name in ("sample", "score", "train", "sync"))
        return done | {
            "parts": parts | {"own": done["seconds"] - named},
            "completions": count,
            "generated": round(row["length"] * count),
            "computed": round(row["computed_tokens"]),
            "idle_groups": self.idle_groups,
            "losses": [row["loss"]],
            "norms": [row["grad_norm"]],
        }


class Syncs(Steps):
    """The trainer's weights handed to the sampler, nothing else."""

    def serve(self, channel: Channel) -> None:
        Ours.serve(self, channel)

    def go(self) -> dict[str, Any]:
        self.meter.begin()
        self.stage.engine.sync(merged_weights(self.context.model))
        return self.meter.end()


def _classifier(case: Case) -> str:
    """A reward model with a fresh head, which both sides load."""
    folder = Path(case.scratch) / "reward_model"
    if not folder.is_dir():
        tokenizer = models.load_tokenizer(case.model)
        model = models.new_classifier(case.model, tokenizer, device="cpu", seed=0)
        models.save(model, tokenizer, folder)
    return str(folder)


def _write_ids(stage: Any, case: Case) -> None:
    """The rows as token ids, in the order in which they come, for the other side."""
    places = range(len(stage.rows))
    rows = [stage.rows[stage.row(place)] for place in places]
    if case.kind == "sft":
        found = [{"input_ids": list(r.ids), "completion_mask": list(r.mask)} for r in rows]
    elif case.kind == "dpo":
        found = [
            {
                "prompt_ids": list(r.prompt),
                "chosen_ids": list(r.completions[0].ids),
                "rejected_ids": list(r.completions[1].ids),
            }
            for r in rows
        ]
    else:
        found = [
            {
                "chosen_ids": [*r.prompt, *r.chosen.ids],
                "rejected_ids": [*r.prompt, *r.rejected.ids],
            }
            for r in rows
        ]
    (Path(case.scratch) / f"{case.kind}.json").write_text(json.dumps(found))


def _size(row: Any) -> int:
    if hasattr(row, "completions"):
        return least_tokens([row])
    if hasattr(row, "chosen"):
        return len(row.prompt) + len(row.chosen.ids) + len(row.rejected.ids)
    return len(row.ids)
