"""Everything around a stage's loop, the same for all: load, check, announce, train, export."""

from __future__ import annotations

import importlib.util
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import set_seed

import data
from align import folder, models
from align.checkpoint import CheckpointError
from align.config import Grpo, Sft, Stage
from align.locate import Located
from align.loop import Loop, NonFiniteError
from align.lora import add_lora
from align.memory import expected_memory
from align.optim import adamw
from align.policy import Policy
from align.probe import why_not_packed
from align.progress import console
from align.rollout import EngineError
from align.rollout.build import build
from align.stages.context import Context
from align.stages.grpo import GrpoStage
from align.stages.rolled import RewardError, as_reward, judged, reward_columns
from align.stages.sft import SftStage

EXIT_PREEMPTED = 143  # 128 + SIGTERM
MISTAKES = (
    data.DataError,
    folder.FolderError,
    CheckpointError,
    RewardError,
    NonFiniteError,
    EngineError,
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


def run_stage(config: Stage, located: Located, launch: Launch) -> None:
    """Train one stage into its folder. Raises one of MISTAKES for what the user can mend."""
    logging.basicConfig(format="%(message)s")
    transformers.utils.logging.disable_progress_bar()
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    stage_folder = launch.out / config.name
    if launch.resume:
        folder.check_unchanged(stage_folder, config)
        if folder.is_done(stage_folder):
            console.print(f"{stage_folder} is complete already; delete it to train again")
            return
    _check_tracker(launch.report_to)
    rows = checked_rows(config)
    path = models.ready(located)
    if not launch.check:
        folder.prepare(stage_folder, resume=launch.resume)
    accelerator = Accelerator(
        mixed_precision="no",  # the policy autocasts itself
        log_with=None if launch.report_to == "none" else launch.report_to,
        project_dir=stage_folder,
    )
    if accelerator.is_main_process and not launch.check:
        folder.write_json(stage_folder / "config.json", folder.described(config))
    _train(config, path, launch, rows, accelerator, stage_folder)


def _check_tracker(name: str) -> None:
    if name != "none" and importlib.util.find_spec(name) is None:
        raise folder.FolderError(f"--report-to {name}: not installed; pip install {name}")


def checked_rows(config: Stage) -> Any:
    """The stage's rows, of the right shape, with a reward that knows right from wrong on them."""
    rows = config.data.rows()
    if isinstance(config, Sft):
        rows = _with_completion(rows)
    report = data.validate.check_rows(rows, config.kind)
    if report.duplicates:
        console.print(f"note: {report.duplicates:,} of {report.rows:,} rows are duplicates")
    if isinstance(config, Grpo):
        first = [rows[0]]
        empty = "" if isinstance(rows[0]["prompt"], str) else data.rows.assistant("")
        judged(as_reward(config.reward), [empty], [[0]], first, reward_columns(rows))
        if "solution" in rows.column_names:
            data.validate.check_reward(rows, config.reward, tolerance=0.05)
    return rows


def _with_completion(rows: Any) -> Any:
    """Rows that hold something to learn; word problems without a worked answer do not."""
    columns = [name for name in ("completion", "messages") if name in rows.column_names]
    kept = [i for i, row in enumerate(rows) if any(row[name] is not None for name in columns)]
    if not kept or len(kept) == len(rows):
        return rows  # nothing to leave out, or nothing at all: the validator says what is missing
    console.print(f"left out {len(rows) - len(kept):,} of {len(rows):,} rows without a completion")
    return rows.select(kept)


def _train(
    config: Stage,
    path: str,
    launch: Launch,
    rows: Any,
    accelerator: Accelerator,
    stage_folder: Path,
) -> None:
    set_seed(config.seed)
    tokenizer = models.load_tokenizer(path, trust_remote_code=config.trust_remote_code)
    policy = _policy(config, path, accelerator)
    _check_context(config, policy.model)
    padded = config.compute.layout == "padded"
    reason = None if padded else why_not_packed(policy, longest=_longest(config))
    if reason and accelerator.is_main_process:
        console.print(f"padded batches instead of shared-prefix packs: {reason}")
    optimizer = adamw(policy, config.optim)
    wrapped, optimizer = accelerator.prepare(policy, optimizer)
    context = Context(
        accelerator=accelerator,
        policy=wrapped,
        tokenizer=tokenizer,
        model_path=path,
        padded=padded or reason is not None,
        folder=stage_folder,
    )
    stage = _stage(config, context, rows, launch)
    if accelerator.is_main_process:
        _announce(config, stage, context)
    if launch.check:
        return
    accelerator.init_trackers(f"align-{config.name}", {"recipe": launch.recipe})
    loop = Loop(
        stage,
        config,
        policy=wrapped,
        optimizer=optimizer,
        accelerator=accelerator,
        folder=stage_folder,
    )
    finished = loop.run(resume=launch.resume)
    stage.close()
    if finished and accelerator.is_main_process:
        model = context.model
        folder.export(
            stage_folder,
            lambda target: models.save(model, tokenizer, target),
            lambda target: {"steps": stage.steps, "weights": models.weights_hash(target)},
        )
        console.print(f"wrote {stage_folder / 'model'}")
    _end(accelerator)
    if not finished:
        console.print("stopped by SIGTERM after a checkpoint; continue with --resume")
        raise SystemExit(EXIT_PREEMPTED)


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


def _check_context(config: Stage, model: Any) -> None:
    """Positions that a model was not made for give nonsense without a word."""
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and room < _longest(config):
        flags = "--sampling.max-prompt-tokens and --sampling.max-tokens together"
        flag = flags if isinstance(config, Grpo) else "--max-tokens"
        raise models.ModelError(f"the model has {room} positions; {flag} must not exceed them")


def _longest(config: Stage) -> int:
    """Tokens of the longest sequence that the stage lets in."""
    if isinstance(config, Grpo):
        return config.sampling.max_prompt_tokens + config.sampling.max_tokens
    return config.max_tokens


def _policy(config: Stage, path: str, accelerator: Accelerator) -> Policy:
    model = models.load_causal_lm(
        path, device=accelerator.device, trust_remote_code=config.trust_remote_code
    )
    if config.lora.rank:
        add_lora(model, config.lora)
    if config.compute.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    temperature = config.sampling.temperature if isinstance(config, Grpo) else 1.0
    autocast = torch.bfloat16 if config.compute.precision == "bf16" else None
    return Policy(
        model,
        temperature=temperature,
        autocast=autocast,
        entropy_gradient=isinstance(config, Grpo) and config.entropy != 0,
    )


def _stage(config: Stage, context: Context, rows: Any, launch: Launch) -> SftStage | GrpoStage:
    if not isinstance(config, Grpo):
        return SftStage(config, context, rows)
    engine = _NoEngine() if launch.check else build(
        config.engine,
        sampling=config.sampling,
        path=context.model_path,
        model=context.model,
        stop=models.stop_tokens(context.tokenizer, context.model_path),
        sequences=config.prompts * config.samples // context.accelerator.num_processes,
        autocast=context.unwrapped.autocast,
        trust_remote_code=config.trust_remote_code,
    )  # fmt: skip
    return GrpoStage(config, context, rows, engine)


class _NoEngine:
    """Stands where `--check` starts no sampler."""

    def sample(self, requests: Any) -> NoReturn:
        raise RuntimeError("--check samples nothing")

    sync = sample


def _announce(config: Stage, stage: SftStage | GrpoStage, context: Context) -> None:
    """The step arithmetic, before the first step."""
    model = context.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lines = {
        "stage": f"{config.name} ({config.kind}) from {config.model}",
        "model": f"{model.num_parameters():,} parameters, {trained:,} trained, "
        f"{config.compute.precision}, {context.accelerator.num_processes} process(es)",
        "data": config.data.name,
        **stage.arithmetic(),
        "memory": expected_memory(config, model),
    }
    for name, text in lines.items():
        console.print(f"{name:>16}  {text}")
