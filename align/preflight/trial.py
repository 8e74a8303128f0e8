"""A stage tried out before its first step: what would have shown after hours shows in seconds.

    the data's text                     whether the model knows such (`knowing`)
    a few groups sampled and scored     whether they teach anything (`worth`)
    the sampler against the trainer     whether both hold the same weights
    the longest batch, both ways        memory, speed, what is no number, the ratio at the start
    the whole run                       time and disk (`estimate`)

Every process takes part. Nothing is left behind (`traceless`): the run goes on as if there had been
no trial, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from align import models
from align.config import Distill, Rollouts, Sample
from align.evaluation.rejection import Selection
from align.packing import Group, Pack
from align.preflight import knowing, longest, measured, sampled, worth
from align.preflight.estimate import estimate
from align.preflight.probes import probed
from align.preflight.traceless import untouched
from align.stages.agreement import bound, gap
from align.stages.context import Context
from align.stages.drawn import Drawer, as_line
from align.terminal.findings import Findings

FEW = 3  # names of weights that are shown


def trial(stage: Any, config: Any, context: Context, found: Findings, *, sync: bool = True) -> None:
    """Try a stage that trains; findings are the same on every process. sync: its engine is to get
    the weights first. Raises EngineError, and TooLargeError where processes share out the weights.
    """
    with untouched(context.unwrapped, context.accelerator.device):
        if _broken_weights(context, found):
            return
        tried = None
        if (known := knowing.nats_of_texts(stage, config, context)) is not None:
            nats, entropy = known
            if knowing.strange(nats, config, context, found, entropy=entropy):
                return
        if isinstance(config, Rollouts) or (isinstance(config, Distill) and config.on_policy):
            tried = _sampled(stage, config, context, found, sync=sync)
            if tried is None:
                return
        groups = [] if tried is None else tried.groups
        if isinstance(config, Rollouts):
            heaviest = longest.rolling(stage, context, groups)
        elif isinstance(config, Distill):
            heaviest = longest.distilling(stage, context, groups)
        else:
            heaviest = longest.passing(stage, context)
        one = measured.measure(heaviest, context)
        measured.judge(one, heaviest, context, found)
        if tried is None and known is None and one.nats is not None:
            knowing.strange(one.nats, config, context, found)
        seen = [] if tried is None else tried.seen
        rate = 0.0 if tried is None else tried.rate
        speed = 0.0 if one.said else one.rate
        estimate(stage, config, context, seen=seen, sampling=rate, training=speed, found=found)


def _broken_weights(context: Context, found: Findings) -> bool:
    """Whether some weight is no finite number, on whatever process it lies."""
    broken = []
    for name, parameter in context.unwrapped.named_parameters():
        value = parameter.detach()
        local = value.to_local() if isinstance(value, DTensor) else value
        if local.numel() and not torch.isfinite(torch.stack(torch.aminmax(local))).all():
            broken.append(name)
    broken = list(dict.fromkeys(context.gathered(broken)))
    if broken:
        names = ", ".join(broken[:FEW]) + (", …" if len(broken) > FEW else "")
        found.error(
            "weights",
            f"{len(broken)} of the tensors loaded from {context.model_path} hold NaN or infinity: "
            f"{names}",
            "take the model from where it was whole, or train it again at a lower --optim.lr",
        )
    return bool(broken)


def _sampled(
    stage: Any, config: Any, context: Context, found: Findings, *, sync: bool
) -> sampled.Tried | None:
    """A few groups and what they say; None where the stage could not even begin with them."""
    scored = isinstance(config, Rollouts)
    sampler = stage.roller if scored else stage.sampler
    processes = context.accelerator.num_processes
    prompts, samples = sampled.size(config, context.accelerator.device.type)
    places = range(min(prompts * processes, len(stage.prompts.kept)))
    groups, seconds = sampled.draw(sampler, context, sync=sync, places=places, samples=samples)
    if scored and (said := sampled.score(sampler, groups, context)):
        found.error("reward", f"on completions of the model, {said}", "mend the reward")
        return None
    stop = models.stop_tokens(context.tokenizer, context.model_path)
    tried = sampled.looked_at(groups, seconds, context, stop)
    worth.figures(tried.seen, rate=tried.rate, found=found)
    chat = not isinstance(stage.prompts.rows[0]["prompt"], str)
    all_cut = worth.judge_texts(
        tried.seen,
        config.sampling,
        chat=chat,
        guess=knowing.guess(context),
        made=knowing.made(config),
        found=found,
    )
    if scored:
        others: list[Any] = []
        if said := sampled.first_said(lambda: others.extend(probed(sampler, groups)), context):
            found.error("reward", said, "mend the reward")
            return None
        probes = context.gathered(others)
        worth.judge_rewards(tried.seen, config, probes, all_cut=all_cut, found=found)
    _judge_engine(stage, config, context, groups, found, synced=sync)
    return tried


def _judge_engine(
    stage: Any, config: Any, context: Context, groups: Any, found: Findings, *, synced: bool
) -> None:
    """The sampler's log-probs against the trainer's, where both mean the same distribution."""
    sampling = config.sampling
    whole = sampling.top_p == 1 and sampling.top_k == 0
    if not whole or sampling.temperature != context.policy.temperature:
        return

    def packed(laid_out: Sequence[Group]) -> list[Pack]:
        return stage.packed(laid_out)

    total, count = gap(groups, context, packed)
    most = bound(max(round(count), 1), sampling.temperature)
    said = (
        f"the sampler's log-probs are {total / max(count, 1):.2g} nats a token from the trainer's"
    )
    if total <= most * count:  # what is no number is not
        found.note("sampler", f"{said} over {count:,.0f} tokens; a ratio starts from there")
    elif synced or config.engine.kind != "server":
        found.error(
            "sampler",
            f"{said}, and rounding makes less than {most:.2f}: it does not sample from the weights "
            "that train",
            "look at --engine.kind; a server must be started with the model's folder, not "
            "quantized, with --logprobs-mode processed_logprobs",
        )
    else:
        found.warning("sampler", f"{said}: the server holds other weights now", "a run sends it "
                      "its own")  # fmt: skip


def trial_of_drawing(stage: Any, config: Sample, context: Context, found: Findings) -> None:
    """Try a stage that samples and trains nothing. Raises EngineError."""
    with untouched(context.unwrapped, context.accelerator.device):
        prompts, samples = sampled.size(config, context.accelerator.device.type)
        most = prompts * context.accelerator.num_processes
        mine = context.share(stage.chosen[:most])
        drawer = Drawer(replace(config, samples=samples), context, stage.engine(), stage.prompts)
        groups, seconds = sampled.together(lambda: drawer.draw(mine, purpose="trial"), context)
        if said := sampled.score(drawer, groups, context):
            found.error("reward", f"on completions of the model, {said}", "mend the reward")
            return
        stop = models.stop_tokens(context.tokenizer, context.model_path)
        tried = sampled.looked_at(groups, seconds, context, stop)
        worth.figures(tried.seen, rate=tried.rate, found=found)
        chat = not isinstance(stage.prompts.rows[0]["prompt"], str)
        worth.judge_texts(
            tried.seen,
            config.sampling,
            chat=chat,
            guess=math.log(len(context.tokenizer)),
            made=knowing.made(config),
            found=found,
        )
        choice = Selection(config.keep)
        reasons = [choice.choose(as_line(group, stage.rows[group.row])) for group in groups]
        worth.judge_kept(context.gathered(reasons), found)
        estimate(stage, config, context, seen=tried.seen, sampling=tried.rate, training=0.0,
                 found=found)  # fmt: skip
