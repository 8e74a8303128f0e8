"""Rejection sampling (2501.12948, section 2.3.3): draw, score, and write the good ones as rows.

Nothing is trained. Batches of prompts are drawn in the order of the data, scored, and added to
`sampled.jsonl` (`ledger`); which samples are kept follows from that file (`rejection`). Departs
from the paper in dropping near-duplicates, and in judging correctness by rule where the paper also
asks a model.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import data
from align.config import Sample as Config
from align.evaluation import rejection
from align.files import manifest
from align.files.disk import writing
from align.files.folder import write_json
from align.processes.preempt import Preempted, Preemption
from align.rollout import Engine
from align.stages.context import Context
from align.stages.drawn import Drawer, as_line
from align.stages.figures import Clock
from align.stages.journal import Journal
from align.stages.ledger import Ledger, Line, write_lines
from align.stages.rolled import Prompts
from align.terminal.progress import console


class NothingKeptError(RuntimeError):
    """No sample passed; the message has the counts by reason and what to change."""


class SampleStage:
    """weights: the identity of the model that samples, for the rows' provenance."""

    def __init__(
        self,
        config: Config,
        context: Context,
        rows: Any,
        *,
        start: Callable[[], Engine],
        weights: str,
    ) -> None:
        self.config, self.context, self.rows = config, context, rows
        self.start, self.weights = start, weights
        self.general = _general(config)
        self.prompts = Prompts(rows, config, context, ask=config.prompting.ask)
        self.chosen = self.prompts.kept[: config.limit or None]
        self.steps = math.ceil(len(self.chosen) / config.prompts)
        self.started: Engine | None = None

    def arithmetic(self) -> dict[str, str]:
        """What is about to be done, in numbers."""
        config, prompts = self.config, len(self.chosen)
        samples = prompts * config.samples
        lines = {
            "prompts": f"{prompts:,} of {len(self.rows):,}, in {self.steps:,} batches",
            "samples": f"{samples:,} ({config.samples} a prompt, at most {config.keep.per_prompt} "
            "kept)",
            "tokens": f"{sum(len(ids) for _, ids in self.chosen):,} of prompts, "
            f"at most {samples * config.sampling.max_tokens:,} of samples",
        }
        if config.general is not None:
            share = f"{config.general_share:.1%} of the rows"
            lines["general"] = f"{share} from {config.general.name} ({len(self.general):,} rows)"
        return lines

    def engine(self) -> Engine:
        """The sampler, started when it is first asked for; `close` stops it."""
        if self.started is None:
            self.started = self.start()
        return self.started

    def close(self) -> None:
        if self.started is not None:
            self.started.close()

    def begun(self) -> bool:
        """Whether something was sampled in a run before; the main process looks."""
        file = self.context.folder / "sampled.jsonl"
        return self.context.gathered([file.is_file() and file.stat().st_size > 0])[0]

    def run(self) -> bool:
        """All batches that are left, then the rows. Returns False if SIGTERM ended it early.

        Raises NothingKeptError, and DataError where there are too few general rows.
        """
        preemption = Preemption()
        journal = self._journal() if self.context.accelerator.is_main_process else None
        (done,) = self.context.gathered([journal.done] if journal else [])
        finished = done == self.steps or self._sample(done, journal, preemption)
        if finished and journal:
            self._write(journal)
        return finished

    def _journal(self) -> Journal:
        folder, chosen = self.context.folder, [row for row, _ in self.chosen]
        prompts = list(self.rows.select(chosen)["prompt"])
        ledger = Ledger(folder / "sampled.jsonl", chosen, prompts, self.config.prompts)
        return Journal(folder, ledger, self.config.keep, steps=self.steps)

    def _sample(self, done: int, journal: Journal | None, preemption: Preemption) -> bool:
        """All batches that are left. Returns False if SIGTERM ended it before the last."""
        # Ranks would part ways: with several, SIGTERM waits for the batch's end.
        alone = self.context.accelerator.num_processes == 1
        breakable = preemption.interruptible if alone else nullcontext
        try:
            with breakable():
                engine = self.engine()
            drawer = Drawer(self.config, self.context, engine, self.prompts)
            for step in range(done + 1, self.steps + 1):
                clock, begun = Clock(), time.perf_counter()
                with breakable():  # nothing of the batch is written yet
                    lines = self._draw(drawer, step, clock)
                if journal:
                    seconds = clock.figures() | {"seconds/total": time.perf_counter() - begun}
                    row = journal.add(step, lines, seconds)
                    self.context.accelerator.log(row, step=step)
                if any(self.context.gathered([preemption.asked])) and step < self.steps:
                    return False
        except Preempted:
            return False
        return True

    def _draw(self, drawer: Drawer, step: int, clock: Clock) -> list[Line]:
        """A batch, drawn and scored by all processes, in the order of the data on each."""
        first = (step - 1) * self.config.prompts
        chosen = self.chosen[first : first + self.config.prompts]
        with clock("sample"):
            groups = drawer.draw(self.context.share(chosen))
        with clock("score"):
            drawer.score(step, groups)
        place = {row: i for i, (row, _) in enumerate(chosen)}
        lines = self.context.gathered([as_line(group, self.rows[group.row]) for group in groups])
        return sorted(lines, key=lambda line: place[line["row"]])

    def _write(self, journal: Journal) -> None:
        """data.jsonl, and done.json last."""
        config, folder, drawn = self.config, self.context.folder, journal.ledger.lines
        counts = rejection.counts(journal.reasons)
        about = {"stage": config.name, "model": config.model, "weights": self.weights}
        kept = [
            row
            for line, reasons in zip(drawn, journal.reasons, strict=True)
            for row in rejection.kept_rows(line, reasons, {**about, "data": config.data.name})
        ]
        if not kept:
            raise NothingKeptError(_nothing(counts))
        general = self._general_rows(len(kept))
        rows = rejection.mixed(kept, general)
        if config.write == "parquet":
            partial = folder / ".data.parquet.partial"
            with writing(folder, half=partial):
                data.rows.dataset(rows).to_parquet(str(partial))
                partial.replace(folder / "data.parquet")
        write_lines(folder / "data.jsonl", rows)
        fingerprint = data.fingerprint.of_rows(self.rows)
        manifest.finish(folder, name=config.data.name, rows=len(self.rows), fingerprint=fingerprint)
        unmatched = sum(None not in reasons for reasons in journal.reasons)
        write_json(
            folder / "done.json",
            {
                "rows": len(rows),
                "data": hashlib.sha256((folder / "data.jsonl").read_bytes()).hexdigest(),
                "prompts": len(drawn),
                "prompts_too_long": len(self.rows) - len(self.prompts.kept),
                "prompts_without_a_kept_sample": unmatched,
                "samples": counts,
                "general": len(general),
            },
        )
        said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        console.print(f"{said}; {unmatched:,} of {len(drawn):,} prompts without a kept sample")
        wrote = f"{len(rows):,} rows, {len(general):,} of them general"
        console.print(f"wrote {folder / 'data.jsonl'}: {wrote}")

    def _general_rows(self, kept: int) -> list[dict[str, Any]]:
        config = self.config
        if config.general is None:
            return []
        wanted = rejection.general_count(kept, config.general_share)
        if wanted > len(self.general):
            most = len(self.general) / (kept + len(self.general))
            raise data.DataError(
                f"--general-share {config.general_share:g} beside {kept:,} kept samples takes "
                f"{wanted:,} general rows, and {config.general.name} has {len(self.general):,}: "
                f"give at most {math.floor(most * 1000) / 1000:g}, with --resume, which samples "
                "nothing again"
            )
        about = {"stage": config.name, "data": config.general.name}
        return rejection.general_rows(self.general, wanted, about, seed=config.seed)


def _general(config: Config) -> Any:
    """The general rows, good for SFT, before anything is sampled."""
    if config.general is None:
        return []
    rows = config.general.rows()
    data.validate.check_rows(rows, "sft")
    return rows


def _nothing(counts: Mapping[str, int]) -> str:
    rejected = {name: count for name, count in counts.items() if name != "kept"}
    return (
        f"not one of {sum(rejected.values()):,} samples was kept ({rejection.advice(rejected)}). "
        "With --resume only --keep and --general may change, and nothing is sampled again; for "
        "all else delete the stage's folder"
    )
