"""What became of every sample, batch by batch: a sampling stage's metrics.jsonl and samples.jsonl.

Both follow from the ledger but for the times, so a start makes them anew: with other rules for what
is kept they say what these keep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from align.checkpoint import Log
from align.config import Keep
from align.evaluation import rejection
from align.stages.figures import prompt_text
from align.stages.ledger import Ledger, Line, whole_lines, write_lines
from align.terminal.progress import Progress

COLUMNS = ("reward", "parts", "correct", "length", "truncated", "outcome")
MEANS = {"reward": "reward", "accuracy": "correct", "length": "length", "truncated": "truncated"}


class Journal:
    """Of the batches in the ledger, then of those that are added."""

    def __init__(self, folder: Path, ledger: Ledger, keep: Keep, *, steps: int) -> None:
        self.ledger = ledger
        self.selection = rejection.Selection(keep)
        self.steps = steps
        self.reasons: list[list[str | None]] = []
        times = _times(folder / "metrics.jsonl")
        rows: list[Line] = []
        samples: list[Line] = []
        for step, lines in enumerate(ledger.batches, start=1):
            row, more = self._account(step, lines)
            rows.append(row | times.get(step, {}))
            samples += more
        self.done = len(rows)
        write_lines(folder / "metrics.jsonl", rows)
        write_lines(folder / "samples.jsonl", samples)
        self.metrics, self.samples = Log(folder / "metrics.jsonl"), Log(folder / "samples.jsonl")
        self.progress = Progress(steps, enabled=True)
        if self.done < steps:
            self.progress.start(self.done, resumed=self.done > 0)

    def add(self, step: int, lines: Sequence[Line], seconds: Mapping[str, float]) -> Line:
        """A batch more, on disk before anything else; returns its row of metrics."""
        row, samples = self._account(step, self.ledger.add(lines))
        row |= {"time": round(time.time(), 3), **seconds}
        self.metrics.write([row])
        self.samples.write(samples)
        self.progress.step(step, row)
        return row

    def _account(self, step: int, lines: Sequence[Line]) -> tuple[Line, list[Line]]:
        chosen = [self.selection.choose(line) for line in lines]
        self.reasons += chosen
        samples = [
            {"step": step, **_logged(line, i, sample), "kept": reason is None, "reason": reason}
            for line, reasons in zip(lines, chosen, strict=True)
            for i, (sample, reason) in enumerate(zip(line["samples"], reasons, strict=True))
        ]
        counts = rejection.counts(chosen)
        row = {"step": step, "steps": self.steps, "samples": len(samples), "kept": counts["kept"]}
        row |= {f"rejected/{name}": n for name, n in counts.items() if name != "kept"}
        for name, column in MEANS.items():
            known = [sample[column] for sample in samples if sample[column] is not None]
            if known:
                row[name] = sum(known) / len(known)
        row["tokens"] = sum(sample["length"] for sample in samples)
        return row, samples


def _logged(line: Line, i: int, sample: Line) -> Line:
    """A sample's row of samples.jsonl."""
    return {
        "prompt_index": line["row"],
        "sample": i,
        "prompt": prompt_text(line["prompt"]),
        "completion": sample["text"],
        "solution": line["solution"],
        **{name: sample[name] for name in COLUMNS},
    }


def _times(path: Path) -> dict[int, Line]:
    """When each batch that was logged was drawn, and how long it took."""
    return {
        row["step"]: {k: v for k, v in row.items() if k == "time" or k.startswith("seconds/")}
        for row in whole_lines(path)[0]
    }
