"""Which sampler a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from align.config import Engine as EngineConfig
from align.config import Sampling
from align.rollout.engine import Engine


def build(
    engine: EngineConfig,
    *,
    sampling: Sampling,
    path: str,
    model: PreTrainedModel,
    stop: Sequence[int],
    sequences: int,
    autocast: torch.dtype | None,
    trust_remote_code: bool = False,
    folder: Path | None = None,
) -> Engine:
    """The engine, started. `model` is what hf samples from, `path` what vLLM loads, or
    whose tokenizer a server must have; `sequences` are the most that one call will ask for;
    `folder` is that of the stage that trains the model, None where its weights stay.
    """
    if engine.kind == "hf":
        from align.rollout.hf import HfEngine

        return HfEngine(model, sampling=sampling, stop=stop, autocast=autocast)
    if engine.kind == "server":
        from align.models import load_tokenizer
        from align.rollout.server import ServerEngine

        tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
        return ServerEngine(
            tokenizer, engine=engine, sampling=sampling, stop=stop, path=path, folder=folder
        )
    from align.rollout.vllm import VllmEngine

    return VllmEngine(
        path,
        engine=engine,
        sampling=sampling,
        stop=stop,
        sequences=sequences,
        trust_remote_code=trust_remote_code,
    )
