"""Before any weights are loaded: what follows from the configuration, the tokenizer, what the model
says of itself, the rows and the disk.

    values      rates, batches, minibatches
    contents    what the rows' texts say
    preferences pairs and labels the wrong way round
    template    the chat template, over rows
    endings     end and pad tokens
    lengths     what the limits leave out, positions, the token budget
    vocabulary  tokenizers and embeddings of all models
    weights     the files against the architecture, adapters' targets
    engine      what samples, its KV cache
    leaks       answers in prompts, evaluations in the training data
    room        the disk

The rows' shape and the rewards were checked before (`stages.checks`). What only sampling and a
backward pass can show is the trial's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from align import models
from align.config import Stage
from align.preflight import (
    contents,
    endings,
    engine,
    leaks,
    lengths,
    preferences,
    room,
    template,
    values,
    vocabulary,
    weights,
)
from align.preflight.subject import Subject
from align.terminal.findings import Findings


class Start(Protocol):
    """What is asked of how a stage is started: see `align.stages.context.Launch`."""

    @property
    def recipe(self) -> str: ...

    @property
    def out(self) -> Path: ...

    @property
    def check(self) -> bool: ...


def check_inputs(
    config: Stage, rows: Any, paths: Mapping[str, str], launch: Start, found: Findings
) -> None:
    """Add to `found`. paths: of each model that is there, see `Subject`. Raises ModelError for a
    tokenizer or a configuration that cannot be read.
    """
    path, trust = paths[config.model], config.trust_remote_code
    subject = Subject(
        config=config,
        rows=rows,
        paths=paths,
        out=launch.out,
        tokenizer=models.load_tokenizer(path, trust_remote_code=trust),
        model_config=models.load_config(path, trust_remote_code=trust),
    )
    contents.check(subject, found)
    preferences.check(subject, found)
    template.check(subject, found)
    if subject.read:
        endings.check(subject, found)
    lengths.check(subject, found)
    vocabulary.check(subject, found)
    size = weights.check(subject, found)
    values.check(subject, found, parameters=size.whole)
    engine.check(subject, found, size, look=launch.check)
    leaks.check(subject, found, recipe=launch.recipe)
    room.check(subject, found, size)
