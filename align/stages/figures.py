"""What a rollout is measured by: figures for metrics.jsonl, rows for samples.jsonl, time split."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from align.stages.context import Context
from align.stages.rolled import Rolled


class Clock:
    """Adds up the seconds of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def figures(self) -> dict[str, float]:
        return {f"seconds/{name}": value for name, value in self.seconds.items()}


def rollout_figures(groups: Sequence[Rolled], context: Context) -> dict[str, float]:
    """Means over all ranks' completions; a part that does not apply somewhere is left out there.

    most_common: the share of the text that comes most often.
    """
    local = [
        {
            "value": score.value,
            "correct": score.correct,
            "parts": score.parts,
            "outcome": score.outcome,
            "length": len(sample.ids),
            "truncated": sample.truncated,
            # Told apart by a digest: all texts need not travel.
            "text": blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(),
        }
        for group in groups
        for score, sample, text in zip(group.scores, group.samples, group.texts, strict=True)
    ]
    rows = context.gathered(local)
    # A completion alone has nothing to be compared with.
    dead = context.gathered([group.dead for group in groups if len(group.samples) > 1])
    figures = {"reward": _mean(row["value"] for row in rows)}
    names = list(dict.fromkeys(name for row in rows for name in row["parts"]))
    figures |= {f"reward/{name}": _mean(row["parts"].get(name) for row in rows) for name in names}
    spread = [row["value"] for row in rows if row["value"] is not None]
    figures["reward_std"] = _deviation(spread)
    if any(row["correct"] is not None for row in rows):
        figures["accuracy"] = _mean(row["correct"] for row in rows)
    figures["length"] = _mean(row["length"] for row in rows)
    figures["truncated"] = _mean(row["truncated"] for row in rows)
    figures["dead_groups"] = _mean(dead)
    texts = Counter(row["text"] for row in rows)
    figures["most_common"] = max(texts.values()) / len(rows) if rows else None
    failed = {row["outcome"] for row in rows} - {"ok"}
    for outcome in sorted(failed):
        figures[f"outcome/{outcome}"] = float(sum(row["outcome"] == outcome for row in rows))
    return {name: value for name, value in figures.items() if value is not None}


def sample_rows(groups: Sequence[Rolled], rows: Any, *, limit: int) -> list[dict[str, Any]]:
    """One row a completion, as samples.jsonl keeps it; the first `limit` of them, 0 for all."""
    out = []
    for group in groups:
        source = rows[group.row]
        for i, (sample, text, score) in enumerate(
            zip(group.samples, group.texts, group.scores, strict=True)
        ):
            out.append(
                {
                    "prompt_index": group.row,
                    "sample": i,
                    "prompt": prompt_text(source["prompt"]),
                    "completion": text,
                    "solution": source.get("solution"),
                    "reward": score.value,
                    "parts": score.parts,
                    "correct": score.correct,
                    "advantage": group.advantages[i],
                    "length": len(sample.ids),
                    "truncated": sample.truncated,
                    "outcome": score.outcome,
                }
            )
    return out[: limit or None]


def prompt_text(prompt: Any) -> str:
    """A prompt for people: the last turn of a chat, or the plain string."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _mean(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
