"""What a person sees while a stage runs: one line a step, and a bar on a terminal."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import (
    Progress as Bar,
)

# One process speaks for all.
console = Console(highlight=False, soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0")

SHOWN = (
    ("reward", "reward {:.3f}"),
    ("accuracy", "accuracy {:.2f}"),
    ("kept", "kept {:.0f}"),
    ("kl", "kl {:.4f}"),
    ("entropy", "entropy {:.2f}"),
    ("length", "length {:.0f}"),
    ("dead_groups", "dead {:.0%}"),
    ("loss", "loss {:.4f}"),
    ("grad_norm", "grad {:.2f}"),
)


def announce(lines: Mapping[str, str]) -> None:
    """What is about to be done, a name and its figures a line."""
    for name, text in lines.items():
        console.print(f"{name:>16}  {text}")


class Progress:
    """Prints each step. Silent on every process but the main one."""

    def __init__(self, steps: int, *, enabled: bool) -> None:
        self.steps = steps
        self.enabled = enabled
        self.begun = time.monotonic()
        self.first = 0
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            console=console,
            transient=True,
            disable=not (enabled and console.is_terminal),
        )

    def start(self, done: int, *, resumed: bool) -> None:
        """Begin after `done` steps. resumed: it was asked to go on where a run was."""
        self.begun, self.first = time.monotonic(), done
        self.task = self.bar.add_task("step", total=self.steps, completed=done, left="?")
        self.bar.start()
        atexit.register(self.bar.stop)  # however it ends, the terminal has its cursor back
        if self.enabled and resumed:
            found = f"resumed after step {done}" if done else "no checkpoint yet: from the start"
            console.print(found)

    def step(self, step: int, row: Mapping[str, float]) -> None:
        """Show the figures of a finished step."""
        if not self.enabled:
            return
        left = (time.monotonic() - self.begun) / (step - self.first) * (self.steps - step)
        parts = [text.format(row[name]) for name, text in SHOWN if name in row]
        parts[1:1] = [
            f"{name.removeprefix('reward/')} {value:.2f}"
            for name, value in row.items()
            if name.startswith("reward/") and not name.endswith("/accuracy")
        ]
        rate = row.get("tokens", 0.0) / max(row["seconds/total"], 1e-9)
        clock = f"{row['seconds/total']:.1f} s  {rate:.0f} tokens/s  {duration(left)} left"
        console.print(f"step {step}/{self.steps}  {'  '.join(parts)}  {clock}")
        self.bar.update(self.task, completed=step, left=duration(left))
        if step == self.steps:
            self.bar.stop()

    def warn(self, warnings: Sequence[Mapping[str, Any]]) -> None:
        """Say what the watch has seen."""
        for each in warnings:
            text = f"warning ({each['rule']}): {each['message']}"
            console.print(text, style="yellow", markup=False)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
