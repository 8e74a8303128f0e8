"""A stage from start to end, whatever it does: hold its folder, check, leave a manifest, run it."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

import data
from align import models
from align.checkpoint import CheckpointError, newest_whole
from align.config import Distill, Rollouts, Sample, Stage
from align.files import folder, manifest
from align.files.locate import Located
from align.files.lock import locked
from align.model_reward import placed
from align.preflight.inputs import check_inputs
from align.preflight.room import check_writable
from align.processes.lost import LostProcessError, noticed
from align.processes.sharding import ShardingError, wanted
from align.references import loading
from align.rollout import EngineError
from align.stages.checks import check_reward, check_tracker, checked_rows
from align.stages.context import Launch
from align.stages.rolled import RewardError
from align.stages.sample import NothingKeptError
from align.stages.sampling import sample
from align.stages.training import train
from align.terminal.again import STARTED_BY
from align.terminal.findings import Findings, PreflightError
from align.terminal.progress import console
from align.training.allocator import keep_freed_memory
from align.training.shortage import TooLargeError, named
from align.training.update import NonFiniteError

EXIT_PREEMPTED = 143  # 128 + SIGTERM
MISTAKES = (
    data.DataError,
    folder.FolderError,
    CheckpointError,
    RewardError,
    NonFiniteError,
    EngineError,
    NothingKeptError,
    models.ModelError,
    ShardingError,
    LostProcessError,
    TooLargeError,
    PreflightError,
)


def run_stage(config: Stage, located: Mapping[str, Located], launch: Launch) -> None:
    """Train one stage into its folder. `located`: where each model that the configuration names
    is. Raises one of MISTAKES for what the user can mend.
    """
    # One process holds the folder for all; a look needs no hold.
    first = os.environ.get("RANK", "0") == "0" and not launch.check
    check_writable(launch.out / config.name)
    with locked(launch.out / config.name) if first else nullcontext():
        _run_stage(config, located, launch)


def _run_stage(config: Stage, located: Mapping[str, Located], launch: Launch) -> None:
    logging.basicConfig(format="%(message)s")
    transformers.utils.logging.disable_progress_bar()
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    if config.compute.keep_memory and not keep_freed_memory():
        console.print("--compute.keep-memory does nothing here: it is for glibc's allocator")
    stage_folder = launch.out / config.name
    based_on = manifest.basis(config, located, launch.out)
    if launch.resume:
        manifest.check_unchanged(stage_folder, based_on, free=config.free)
        if folder.is_done(stage_folder) and not manifest.changed(stage_folder, based_on):
            _check_result(config, stage_folder)
            console.print(f"{stage_folder} is complete already; delete it to train again")
            return
    if launch.check:
        _check_folder(stage_folder, launch)
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
    if isinstance(config, Rollouts | Sample):
        check_reward(config, rows, models_too=not loading(config.reward))
    found = Findings()
    check_inputs(config, rows, paths, launch, found)
    found.settle()
    if not launch.check:
        folder.prepare(stage_folder, resume=launch.resume)
    patience = config.compute.patience
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # which makes processes on CPUs find together
        mixed_precision="no",  # the policy autocasts itself
        log_with=None if launch.report_to == "none" else launch.report_to,
        project_dir=stage_folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=patience))],
    )
    wanted(accelerator)
    named_shortage = named(token_budget=config.compute.token_budget)
    with noticed(accelerator.process_index, patience=patience), named_shortage:
        finished = _work(config, paths, launch, rows, accelerator, began, based_on)
    if launch.check:
        console.print(f"checked: nothing stands in the way of {config.name}")
    if not finished:
        console.print("stopped by SIGTERM after a checkpoint; continue with --resume")
        raise SystemExit(EXIT_PREEMPTED)


def _check_result(config: Stage, stage_folder: Path) -> None:
    """Raises FolderError or ModelError where a stage that is complete does not hold its result."""
    if isinstance(config, Sample):
        folder.made_by(stage_folder, "data")
        folder.check_written(stage_folder, ["data.jsonl", f"data.{config.write}"])
    else:
        models.ready(Located(kind="folder", path=str(stage_folder / "model")))


def _check_folder(stage: Path, launch: Launch) -> None:
    """Whether a run could begin in it, or go on; a chain sees to what its stages find."""
    if STARTED_BY not in os.environ:
        folder.check_unheld(stage, resume=launch.resume)
    if launch.resume:
        essence = manifest.essence(stage)
        newest_whole(
            stage / "checkpoints", lambda about: manifest.strange(about.get("of", {}), essence)
        )


def _work(
    config: Stage,
    paths: Mapping[str, str],
    launch: Launch,
    rows: Any,
    accelerator: Accelerator,
    began: Stage,
    based_on: Mapping[str, Any],
) -> bool:
    """What processes do together; False where SIGTERM ended it early. began: the configuration as
    it was given.
    """
    stage_folder = launch.out / config.name
    if accelerator.is_main_process and not launch.check:
        (stage_folder / "done.json").unlink(missing_ok=True)  # of samples chosen otherwise
        folder.write_json(stage_folder / "config.json", based_on["config"])
        manifest.begin(stage_folder, began, based_on, recipe=launch.recipe)
    if isinstance(config, Sample):
        how = {"check": launch.check, "trial": launch.trial}
        finished = sample(config, paths, rows, accelerator, folder=stage_folder, **how)
    else:
        finished = train(config, paths, launch, rows, accelerator, stage_folder)
    if not launch.check:
        _end(accelerator)
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
