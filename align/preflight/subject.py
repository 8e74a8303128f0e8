"""What the checks of the inputs look at: a stage's configuration, some of its rows, its tokenizer
and what its model's files say. Read once, before any weights are loaded.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PretrainedConfig, PreTrainedTokenizerBase

import data
from align.config import Distill, Passes, Rollouts, Sample, Stage

DRAWN = 512  # rows that are rendered: a share of them is known to within 4 points
SAMPLING = Rollouts | Sample | Distill


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A row as token ids. row: its place. answers: each whole answer's ids, none of a row that is
    sampled from. refused: why it cannot be rendered.
    """

    row: int
    prompt: Sequence[int] = ()
    answers: Sequence[Sequence[int]] = ()
    refused: str = ""

    @property
    def length(self) -> int:
        return len(self.prompt) + max((len(answer) for answer in self.answers), default=0)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """paths: where each model that the configuration names is; one that an earlier stage is still
    to write is not among them, but for the stage's input, for which its nearest ancestor stands.
    out: the run folder.
    """

    config: Stage
    rows: Any
    paths: Mapping[str, str]
    out: Path
    tokenizer: PreTrainedTokenizerBase
    model_config: PretrainedConfig

    @property
    def path(self) -> str:
        """The folder of the stage's input."""
        return self.paths[self.config.model]

    def place(self, name: str) -> str | None:
        """Where another model is; None of one that is not there yet, and of none."""
        if name and Path(name).is_dir():
            return name
        return self.paths.get(name)

    @property
    def samples(self) -> bool:
        """Whether completions are sampled."""
        config = self.config
        return isinstance(config, Rollouts | Sample) or (
            isinstance(config, Distill) and config.on_policy > 0
        )

    @property
    def processes(self) -> int:
        return int(os.environ.get("WORLD_SIZE", "1"))

    @cached_property
    def drawn(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Some rows with their places, always the same."""
        return [(place, self.rows[place]) for place in drawn(len(self.rows), DRAWN)]

    @cached_property
    def readings(self) -> list[Reading]:
        """The drawn rows as token ids."""
        return [self._read(place, row) for place, row in self.drawn]

    @property
    def read(self) -> list[Reading]:
        """Those that could be rendered."""
        return [reading for reading in self.readings if not reading.refused]

    def encode(self, text: str) -> list[int]:
        """A text's own tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _read(self, place: int, row: Mapping[str, Any]) -> Reading:
        try:
            if isinstance(self.config, SAMPLING):
                return Reading(row=place, prompt=self._prompt(row))
            answers = [data.chat.render(self.tokenizer, asked) for asked in _asked(row)]
        except (data.chat.RenderError, TemplateError) as error:
            return Reading(row=place, refused=str(error))
        start = answers[0].mask.index(1)
        return Reading(
            row=place,
            prompt=answers[0].ids[:start],
            answers=[answer.ids[start:] for answer in answers],
        )

    def _prompt(self, row: Mapping[str, Any]) -> list[int]:
        prompt = row["prompt"] if row.get("prompt") is not None else row["messages"][:-1]
        if isinstance(self.config, Sample):
            prompt = self.config.prompting.ask(prompt)
        return data.chat.prompt_ids(self.tokenizer, prompt)


def drawn(count: int, most: int) -> list[int]:
    """Places of at most so many of `count` rows, by lot, in order."""
    if count <= most:
        return list(range(count))
    return sorted(random.Random("preflight").sample(range(count), most))


def longest(config: Stage) -> int:
    """Tokens of the longest sequence that the stage lets in."""
    if isinstance(config, SAMPLING):
        return config.sampling.max_prompt_tokens + config.sampling.max_tokens
    assert isinstance(config, Passes)
    return config.max_tokens


def _asked(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is rendered of a row: itself, or both sides of a pair."""
    if row.get("chosen") is not None:
        return [
            {"prompt": row["prompt"], "completion": row[side]} for side in ("chosen", "rejected")
        ]
    names = ("prompt", "completion", "messages")
    return [{name: row.get(name) for name in names}]
