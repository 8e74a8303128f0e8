"""The reference's log-probs, computed once before the first step and kept.

The reference is the stage's input, and before the first step so is the policy: no second model is
loaded. What was computed is kept under a hash of the weights and of every token, so a run with
another beta, and a resumed one whose weights have moved on, read the same numbers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from align.files.cached import cache_folder
from align.files.disk import writing
from align.files.folder import identity
from align.modeling.lora import active_adapters, adapters_off
from align.packing import Completion, Group, pack
from align.stages.context import Context
from align.terminal.progress import console

CHUNK = 64  # groups packed together; the same ones on any number of processes


def reference_logprobs(
    groups: Sequence[Group], context: Context, *, token_budget: int
) -> list[list[Tensor]]:
    """For each group, for each completion, the log-prob of each of its *trained* tokens."""
    key = _key(groups, context, token_budget)
    file = cache_folder().parent / "reference" / f"{key}.safetensors"
    lengths = [[_trained(one) for one in group.completions] for group in groups]
    flat = _kept(file, context)
    if flat is None:
        flat = _computed(groups, lengths, context, token_budget)
        if context.accelerator.is_main_process:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}.partial")
            with writing(file.parent, needed=flat.nbytes, half=partial):
                save_file({"logprobs": flat}, partial)
                partial.replace(file)
    pieces = iter(flat.split([length for group in lengths for length in group]))
    return [[next(pieces) for _ in group] for group in lengths]


def _kept(file: Path, context: Context) -> Tensor | None:
    """What the main process has on disk, if it has: one decides for all, on whatever machines."""
    main = context.accelerator.is_main_process
    found = load_file(file)["logprobs"] if main and file.is_file() else None
    return context.gathered([found])[0]


@torch.no_grad()
def _computed(
    groups: Sequence[Group], lengths: list[list[int]], context: Context, token_budget: int
) -> Tensor:
    """All of them in order, [sum of lengths]."""
    policy = context.policy
    was_training = policy.training
    policy.eval()
    mine: list[tuple[int, Tensor]] = []
    chunks = range(0, len(groups), CHUNK)
    steps = track(
        context.share(list(chunks)),
        "log-probs of the reference",
        console=console,
        transient=True,
        disable=not (context.accelerator.is_main_process and console.is_terminal),
    )
    counter = itertools.count()  # a running number for each completion
    numbers = [[next(counter) for _ in group] for group in lengths]
    for start in steps:
        numbered = [
            Group(
                prompt=group.prompt,
                completions=[
                    Completion(ids=one.ids, mask=one.mask, columns={"number": float(number)})
                    for one, number in zip(group.completions, numbers[start + i], strict=True)
                ],
            )
            for i, group in enumerate(groups[start : start + CHUNK])
        ]
        for one in pack(numbered, token_budget=token_budget, padded=context.padded):
            with adapters_off(policy.model):
                logprobs = policy(one.to(context.accelerator.device), entropy=False)[0].cpu()
            split = logprobs.split(one.lengths().tolist())
            mine += zip(one.per_sequence("number").long().tolist(), split, strict=True)
    policy.train(was_training)
    # One tensor and its pieces' numbers: a piece is a view, and would be sent with all of its pack.
    sent = ([number for number, _ in mine], torch.cat([torch.empty(0), *(one for _, one in mine)]))
    long = [length for group in lengths for length in group]
    found: dict[int, Tensor] = {}
    for got, flat in context.gathered([sent]):
        pieces = flat.split([long[number] for number in got])
        found |= dict(zip(got, pieces, strict=True))
    return torch.cat([found[number] for number in sorted(found)])


def _trained(completion: Completion) -> int:
    return len(completion.ids) if completion.mask is None else sum(completion.mask)


def _key(groups: Sequence[Group], context: Context, token_budget: int) -> str:
    """Over the weights and everything else that the numbers depend on, to the last bit."""
    weights = identity(context.model_path)
    digest = hashlib.sha256(weights.encode())
    how = [
        active_adapters(context.policy.model),
        str(context.policy.autocast),
        context.padded,
        token_budget,
        torch.__version__,
        context.accelerator.device.type,
    ]
    digest.update(json.dumps(how).encode())
    for group in groups:
        rows = [list(group.prompt), *([list(c.ids), list(c.mask or [])] for c in group.completions)]
        digest.update(json.dumps(rows).encode())
    return digest.hexdigest()
