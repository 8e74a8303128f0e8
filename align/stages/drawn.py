"""Drawing for rejection sampling: a prompt's samples, brought to the text that will be written.

What is scored, measured and kept is that text; the text as the model gave it is kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from align.rollout import Request, Sample, seed_of
from align.stages.ledger import Line
from align.stages.rolled import Rolled, Roller
from data.cleaning import Unclean, clean
from data.prompting import FewShot, ended


@dataclass(kw_only=True)
class Drawn(Rolled):
    """A prompt with its samples, as they are written; raw, unclean: a note a sample."""

    seeds: list[int]
    raw: list[str | None]
    unclean: list[str | None]


class Drawer(Roller):
    """Draws each prompt once, seeded by its row, and brings the texts to what will be written."""

    def draw(
        self, chosen: Sequence[tuple[int, list[int]]], *, purpose: str = "sample"
    ) -> list[Drawn]:
        """These prompts' samples. purpose: what is drawn for something else has other seeds."""
        seeds = [
            [seed_of(self.config.seed, purpose, row, i) for i in range(self.config.samples)]
            for row, _ in chosen
        ]
        requests = [
            Request(prompt=ids, seeds=own) for (_, ids), own in zip(chosen, seeds, strict=True)
        ]
        drawn = self.engine.sample(requests) if requests else []
        return [self._drawn(*each) for each in zip(chosen, seeds, drawn, strict=True)]

    def _drawn(
        self, prompt: tuple[int, list[int]], seeds: list[int], samples: list[Sample]
    ) -> Drawn:
        row, ids = prompt
        # Only worked examples teach a model to go on to a question of its own; any other's rule
        # or "User:" is part of its reasoning.
        examples = isinstance(self.config.prompting, FewShot)
        cut = examples and isinstance(self.prompts.rows[row]["prompt"], str)
        found = [self._as_written(sample, cut) for sample in samples]
        return Drawn(
            row=row,
            prompt=ids,
            samples=[sample for sample, _, _, _ in found],
            texts=[text for _, text, _, _ in found],
            scores=[],
            seeds=seeds,
            raw=[raw for _, _, raw, _ in found],
            unclean=[why for _, _, _, why in found],
        )

    def _as_written(self, sample: Sample, cut: bool) -> tuple[Sample, str, str | None, str | None]:
        """The sample with its text, the text as it was where that is another, and why it could not
        be cleaned.
        """
        tokenizer = self.context.tokenizer
        raw = text = tokenizer.decode(sample.ids, skip_special_tokens=True)
        unclean = None
        if cut and (text := ended(raw)) != raw:
            sample = replace(sample, truncated=False)
        if self.config.clean and not sample.truncated:
            try:
                text = clean(text)
            except Unclean as why:
                unclean = str(why)
        if text == raw:
            return sample, text, None, unclean
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return replace(sample, ids=ids), text, raw, unclean


def as_line(group: Drawn, row: Mapping[str, Any]) -> Line:
    """A prompt's line of sampled.jsonl."""
    samples = []
    for i, (sample, text, score) in enumerate(
        zip(group.samples, group.texts, group.scores, strict=True)
    ):
        notes = {"raw": group.raw[i], "unclean": group.unclean[i]}
        samples.append(
            {
                "text": text,
                "length": len(sample.ids),
                "truncated": sample.truncated,
                "seed": group.seeds[i],
                "reward": score.value,
                "correct": score.correct,
                "parts": score.parts,
                "outcome": score.outcome,
            }
            | {name: note for name, note in notes.items() if note is not None}
        )
    found = {"row": group.row, "prompt": row["prompt"], "solution": row.get("solution")}
    return {**found, "samples": samples}
