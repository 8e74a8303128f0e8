"""Around a training stage: load, prepare, announce, loop, export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import set_seed
from torch import nn

import data
from align import models
from align.checkpoint import stored
from align.config import Distill, Dpo, Grpo, Kto, Ppo, RewardModel, Rollouts, Sft, Stage
from align.files import folder, manifest
from align.loop import Loop
from align.modeling.actor_critic import ActorCritic
from align.modeling.policy import Policy
from align.modeling.scorer import Scorer
from align.preflight.subject import longest
from align.probe import why_not_packed
from align.processes import sharding
from align.references import loading
from align.rollout.build import build
from align.stages.base import StageBase
from align.stages.checks import check_reward
from align.stages.context import Context, Launch
from align.stages.distill import DistillStage
from align.stages.expected_memory import expected_memory
from align.stages.grpo import GrpoStage
from align.stages.kto import KtoStage
from align.stages.modules import trained_module
from align.stages.ppo import PpoStage
from align.stages.preference import PreferenceStage
from align.stages.reward_model import RewardModelStage
from align.stages.roles import check_reward_models, share_base
from align.stages.sft import SftStage
from align.terminal.findings import Findings
from align.terminal.progress import announce, console
from align.training.optim import adamw
from align.vocabulary import check_teacher

STAGES: dict[type[Stage], type[Any]] = {
    Sft: SftStage,
    RewardModel: RewardModelStage,
    Dpo: PreferenceStage,
    Kto: KtoStage,
    Grpo: GrpoStage,
    Ppo: PpoStage,
    Distill: DistillStage,
}


def train(
    config: Stage,
    paths: Mapping[str, str],
    launch: Launch,
    rows: Any,
    accelerator: Accelerator,
    stage_folder: Path,
) -> bool:
    """Every step of a stage that trains, then the export. Returns False if SIGTERM ended it early;
    with `launch.check` nothing is trained.
    """
    set_seed(config.seed)
    path = paths[config.model]
    tokenizer = models.load_tokenizer(path, trust_remote_code=config.trust_remote_code)
    if isinstance(config, Distill):
        check_teacher(tokenizer, path=config.teacher)
    critic_path = paths.get(getattr(config, "critic_model", ""))
    module = trained_module(
        config, path, tokenizer, device=accelerator.device, critic_path=critic_path
    )
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
    wrapped, optimizer = _prepared(module, config, accelerator)
    context = Context(
        accelerator=accelerator,
        module=wrapped,
        tokenizer=tokenizer,
        model_path=path,
        padded=padded,
        folder=stage_folder,
    )
    tried = launch.trial and not _continues(context, launch)
    stage = _stage(config, context, rows, launch, sampling=tried or not launch.check)
    try:
        if accelerator.is_main_process:
            _announce(config, stage, context)
        if tried:
            _try(stage, config, context, launch)
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
    finally:
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
        elif sharding.wanted(accelerator):
            stage.save(None)
    return finished


def _prepared(
    module: Any, config: Stage, accelerator: Accelerator
) -> tuple[nn.Module, AcceleratedOptimizer]:
    """The module as its forward is to be called, and its optimizer."""
    sharded = sharding.wanted(accelerator)
    if sharded:
        sharding.shard(module, accelerator)
    apart = list(module.critic_parameters()) if isinstance(module, ActorCritic) else []
    rate = config.critic_lr if isinstance(config, Ppo) else 0.0
    optimizer = adamw(module, config.optim, critic=apart, critic_lr=rate)
    if sharded:
        return module, accelerator.prepare_optimizer(optimizer)
    return accelerator.prepare(module, optimizer)


def _why_not_packed(module: Any, config: Stage) -> str | None:
    """Of every model in the module, the first reason."""
    parts = [part for part in module.modules() if isinstance(part, Policy | Scorer)]
    reasons = (why_not_packed(part, longest=longest(config)) for part in parts)
    return next((reason for reason in reasons if reason), None)


def _continues(context: Context, launch: Launch) -> bool:
    """Whether there is a checkpoint to go on from; the main process looks."""
    there = launch.resume and bool(stored(context.folder / "checkpoints"))
    return context.gathered([there])[0]


def _try(stage: StageBase, config: Stage, context: Context, launch: Launch) -> None:
    """Raises PreflightError for what would fail or teach nothing."""
    from align.preflight.trial import trial  # which knows the stages

    found = Findings()
    trial(stage, config, context, found, sync=not _borrowed(config, launch))
    found.settle()


def _borrowed(config: Stage, launch: Launch) -> bool:
    """Whether the sampler is left as it is: a look must not change a server that a run may use."""
    return (
        launch.check and isinstance(config, Rollouts | Distill) and config.engine.kind == "server"
    )


def _stage(
    config: Stage, context: Context, rows: Any, launch: Launch, *, sampling: bool
) -> StageBase:
    """sampling: whether anything is to be sampled, with `launch.check` by a trial alone."""
    if not isinstance(config, Rollouts | Distill):
        return STAGES[type(config)](config, context, rows)
    follows = isinstance(config, Distill) and not config.on_policy
    engine = _NoEngine() if follows or not sampling else build(
        config.engine,
        sampling=config.sampling,
        path=context.model_path,
        model=context.model,
        stop=models.stop_tokens(context.tokenizer, context.model_path),
        sequences=config.prompts * config.samples // context.accelerator.num_processes,
        autocast=context.policy.autocast,
        trust_remote_code=config.trust_remote_code,
        folder=None if _borrowed(config, launch) else context.folder,
    )  # fmt: skip
    return STAGES[type(config)](config, context, rows, engine)


class _NoEngine:
    """Stands where nothing is sampled: for a look without a trial, and for a student of the data
    alone.
    """

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
        "memory": expected_memory(config, context.unwrapped, getattr(stage, "rows", None)),
    }
    announce(lines)
