"""Everything around a stage's loop, the same for all: load, check, announce, train, export."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import set_seed

import data
from align import folder, manifest, models
from align.actor_critic import ActorCritic
from align.checkpoint import CheckpointError
from align.config import (
    Distill,
    Dpo,
    Grpo,
    Kto,
    Ppo,
    RewardModel,
    Rollouts,
    Sample,
    Sft,
    Stage,
)
from align.locate import Located
from align.lock import locked
from align.loop import Loop, NonFiniteError
from align.memory import expected_memory
from align.model_reward import placed
from align.optim import adamw
from align.policy import Policy
from align.probe import why_not_packed
from align.progress import console
from align.references import loading
from align.rollout import EngineError
from align.rollout.build import build
from align.scorer import Scorer
from align.stages.base import StageBase
from align.stages.checks import (
    check_context,
    check_reward,
    check_tracker,
    checked_rows,
    longest,
)
from align.stages.context import Context
from align.stages.distill import DistillStage
from align.stages.grpo import GrpoStage
from align.stages.kto import KtoStage
from align.stages.modules import trained_module
from align.stages.ppo import PpoStage
from align.stages.preference import PreferenceStage
from align.stages.reward_model import RewardModelStage
from align.stages.roles import check_reward_models, share_base
from align.stages.rolled import RewardError
from align.stages.sample import NothingKeptError
from align.stages.sampling import sample
from align.stages.sft import SftStage
from align.vocabulary import check_teacher

EXIT_PREEMPTED = 143  # 128 + SIGTERM
STAGES: dict[type[Stage], type[Any]] = {
    Sft: SftStage,
    RewardModel: RewardModelStage,
    Dpo: PreferenceStage,
    Kto: KtoStage,
    Grpo: GrpoStage,
    Ppo: PpoStage,
    Distill: DistillStage,
}
MISTAKES = (
    data.DataError,
    folder.FolderError,
    CheckpointError,
    RewardError,
    NonFiniteError,
    EngineError,
    NothingKeptError,
    models.ModelError,
)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a stage is started: `out` is the run folder, `check` validates and trains nothing."""

    recipe: str
    out: Path
    resume: bool
    check: bool
    report_to: str


def run_stage(config: Stage, located: Mapping[str, Located], launch: Launch) -> None:
    """Train one stage into its folder. `located`: where each model that the configuration names
    is. Raises one of MISTAKES for what the user can mend.
    """
    # One process holds the folder for all; a look needs no hold.
    first = os.environ.get("RANK", "0") == "0" and not launch.check
    with locked(launch.out / config.name) if first else nullcontext():
        _run_stage(config, located, launch)


def _run_stage(config: Stage, located: Mapping[str, Located], launch: Launch) -> None:
    logging.basicConfig(format="%(message)s")
    transformers.utils.logging.disable_progress_bar()
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    stage_folder = launch.out / config.name
    based_on = manifest.basis(config, located, launch.out)
    if launch.resume:
        manifest.check_unchanged(stage_folder, based_on, free=config.free)
        if folder.is_done(stage_folder) and not manifest.changed(stage_folder, based_on):
            console.print(f"{stage_folder} is complete already; delete it to train again")
            return
    check_tracker(launch.report_to)
    began = config
    config = data.placed(config, launch.out)
    served = config.model if isinstance(config, Sample) and config.engine.kind == "server" else ""
    paths = {name: models.ready(found, weights=name != served) for name, found in located.items()}
    if isinstance(config, Rollouts | Sample):
        reward = placed(config.reward, lambda name: paths[name])
        config = dataclasses.replace(config, reward=reward)
    if isinstance(config, Distill):
        config = dataclasses.replace(config, teacher=paths[config.teacher])
    rows = checked_rows(config)
    if isinstance(config, Rollouts | Sample) and not loading(config.reward):
        check_reward(config, rows)
    if not launch.check:
        folder.prepare(stage_folder, resume=launch.resume)
    accelerator = Accelerator(
        mixed_precision="no",  # the policy autocasts itself
        log_with=None if launch.report_to == "none" else launch.report_to,
        project_dir=stage_folder,
    )
    if accelerator.is_main_process and not launch.check:
        (stage_folder / "done.json").unlink(missing_ok=True)  # of samples chosen otherwise
        folder.write_json(stage_folder / "config.json", based_on["config"])
        manifest.begin(stage_folder, began, based_on, recipe=launch.recipe)
    if isinstance(config, Sample):
        finished = sample(config, paths, rows, accelerator, folder=stage_folder, check=launch.check)
    else:
        finished = _train(config, paths, launch, rows, accelerator, stage_folder)
    if not launch.check:
        _end(accelerator)
    if not finished:
        console.print("stopped by SIGTERM after a checkpoint; continue with --resume")
        raise SystemExit(EXIT_PREEMPTED)


def _train(
    config: Stage,
    paths: Mapping[str, str],
    launch: Launch,
    rows: Any,
    accelerator: Accelerator,
    stage_folder: Path,
) -> bool:
    set_seed(config.seed)
    path = paths[config.model]
    tokenizer = models.load_tokenizer(path, trust_remote_code=config.trust_remote_code)
    if isinstance(config, Distill):
        check_teacher(tokenizer, path=config.teacher)
    critic_path = paths.get(getattr(config, "critic_model", ""))
    module = trained_module(
        config, path, tokenizer, device=accelerator.device, critic_path=critic_path
    )
    check_context(config, module.model)
    padded = config.compute.layout == "padded"
    reason = None if padded else _why_not_packed(module, config)
    if reason and accelerator.is_main_process:
        console.print(f"padded batches instead of shared-prefix packs: {reason}")
    padded = padded or reason is not None
    if isinstance(config, Rollouts) and loading(config.reward):
        check_reward_models(config, tokenizer)
        if isinstance(config, Ppo) and config.critic == "adapters":
            share_base(config, module.policy, path, tokenizer, padded=padded)
        check_reward(config, rows)
    apart = list(module.critic_parameters()) if isinstance(module, ActorCritic) else []
    rate = config.critic_lr if isinstance(config, Ppo) else 0.0
    optimizer = adamw(module, config.optim, critic=apart, critic_lr=rate)
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    context = Context(
        accelerator=accelerator,
        module=wrapped,
        tokenizer=tokenizer,
        model_path=path,
        padded=padded,
        folder=stage_folder,
    )
    stage = _stage(config, context, rows, launch)
    if accelerator.is_main_process:
        _announce(config, stage, context)
    if launch.check:
        return True
    accelerator.init_trackers(f"align-{config.name}", {"recipe": launch.recipe})
    stage.prepare()
    loop = Loop(
        stage,
        config,
        module=wrapped,
        optimizer=optimizer,
        accelerator=accelerator,
        folder=stage_folder,
    )
    finished = loop.run(resume=launch.resume)
    stage.close()
    if finished:
        stage.finish()
        if accelerator.is_main_process:
            manifest.finish(
                stage_folder,
                name=config.data.name,
                rows=len(rows),
                fingerprint=data.fingerprint.of_rows(rows),
            )
            folder.export(
                stage_folder,
                stage.save,
                lambda target: {"steps": stage.steps, "weights": models.weights_hash(target)},
            )
            console.print(f"wrote {stage_folder / 'model'}")
    return finished


def _end(accelerator: Accelerator) -> None:
    """Leave the process group together.

    A gloo thread lets go of a collective's tensors some time after the collective, for which it
    needs Python's lock; whoever takes the group down holds that lock and waits for the thread. So
    the last collective is one without tensors, and the thread gets the lock for a moment.
    """
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        time.sleep(0.5)
    accelerator.end_training()


def _why_not_packed(module: Any, config: Stage) -> str | None:
    """Of every model in the module, the first reason."""
    parts = [part for part in module.modules() if isinstance(part, Policy | Scorer)]
    reasons = (why_not_packed(part, longest=longest(config)) for part in parts)
    return next((reason for reason in reasons if reason), None)


def _stage(config: Stage, context: Context, rows: Any, launch: Launch) -> StageBase:
    if not isinstance(config, Rollouts | Distill):
        return STAGES[type(config)](config, context, rows)
    follows = isinstance(config, Distill) and not config.on_policy
    engine = _NoEngine() if launch.check or follows else build(
        config.engine,
        sampling=config.sampling,
        path=context.model_path,
        model=context.model,
        stop=models.stop_tokens(context.tokenizer, context.model_path),
        sequences=config.prompts * config.samples // context.accelerator.num_processes,
        autocast=context.policy.autocast,
        trust_remote_code=config.trust_remote_code,
    )  # fmt: skip
    return STAGES[type(config)](config, context, rows, engine)


class _NoEngine:
    """Stands where nothing is sampled: for `--check`, and for a student of the data alone."""

    def sample(self, requests: Any) -> NoReturn:
        raise RuntimeError("there is no sampler here")

    sync = sample

    def close(self) -> None:
        pass


def _announce(config: Stage, stage: Any, context: Context) -> None:
    """The step arithmetic, before the first step."""
    parameters = list(context.unwrapped.parameters())
    total = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    lines = {
        "stage": f"{config.name} ({config.kind}) from {config.model}",
        "model": f"{total:,} parameters, {trained:,} trained, "
        f"{config.compute.precision}, {context.accelerator.num_processes} process(es)",
        "data": config.data.name,
        **stage.arithmetic(),
        "memory": expected_memory(config, context.unwrapped),
    }
    for name, text in lines.items():
        console.print(f"{name:>16}  {text}")
