"""Around a sampling stage: load the model or reach the server, announce, sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from align import models
from align.config import Sample
from align.files.folder import identity
from align.references import loading
from align.rollout import Engine
from align.rollout.build import build
from align.stages.checks import check_reward
from align.stages.context import Context
from align.stages.roles import check_reward_models
from align.stages.sample import SampleStage
from align.terminal.findings import Findings
from align.terminal.progress import announce


def sample(
    config: Sample,
    paths: Mapping[str, str],
    rows: Any,
    accelerator: Accelerator,
    *,
    folder: Path,
    check: bool,
    trial: bool = False,
) -> bool:
    """Run the stage. Returns False if SIGTERM ended it early; with `check` nothing is written.
    trial: try it out first, where nothing was sampled yet.
    """
    path = paths[config.model]
    trust = config.trust_remote_code
    tokenizer = models.load_tokenizer(path, trust_remote_code=trust)
    autocast = torch.bfloat16 if config.compute.precision == "bf16" else None
    module = nn.Identity()  # vLLM and a server hold the model themselves
    if config.engine.kind == "hf":
        module = models.load_causal_lm(path, device=accelerator.device, trust_remote_code=trust)
    if loading(config.reward):
        check_reward_models(config, tokenizer)
        check_reward(config, rows)
    context = Context(
        accelerator=accelerator,
        module=module,
        tokenizer=tokenizer,
        model_path=path,
        padded=False,
        folder=folder,
    )

    def start() -> Engine:
        return build(
            config.engine,
            sampling=config.sampling,
            path=path,
            model=module,
            stop=models.stop_tokens(tokenizer, path),
            sequences=config.prompts * config.samples // accelerator.num_processes,
            autocast=autocast,
            trust_remote_code=trust,
        )

    stage = SampleStage(config, context, rows, start=start, weights=identity(path))
    if accelerator.is_main_process:
        lines = {
            "stage": f"{config.name} ({config.kind}) from {config.model}",
            "sampler": f"{config.engine.kind}, {accelerator.num_processes} process(es)",
            "data": config.data.name,
            **stage.arithmetic(),
        }
        announce(lines)
    try:
        if trial and not stage.begun():
            from align.preflight.trial import trial_of_drawing  # which knows the stages

            found = Findings()
            trial_of_drawing(stage, config, context, found)
            found.settle()
        if check:
            return True
        accelerator.init_trackers(f"align-{config.name}")
        return stage.run()
    finally:
        stage.close()
