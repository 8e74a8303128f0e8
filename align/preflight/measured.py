"""One pack forward and backward under the stage's own loss, as a step does it, and what came of it.

Checked besides: the log-probs that the loss sees are those that its ratio starts from, so that the
importance ratio is 1, or the policy the reference, before the first update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from align.config import Distill, Dpo, Kto
from align.preflight.longest import Heaviest
from align.processes.sharding import settle
from align.stages.context import Context
from align.terminal.findings import Findings
from align.terminal.sizes import GIB, gib
from align.training.backward import Backward
from align.training.meter import MIB, Meter
from align.training.shortage import LESS, TooLargeError, is_shortage
from align.training.update import filler

# Nats a token on average between two passes over one pack, and over the same tokens packed
# otherwise, in float32 and under autocast to bfloat16.
SAME = {"fp32": 1e-4, "bf16": 1e-2}
OTHERWISE = {"fp32": 1e-3, "bf16": 5e-2}
NOTHING = 1e-8  # of a divergence: two models that are one


class MomentsError(TooLargeError):
    """They do not depend on the pack, so a smaller one is no cure."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the pack took, the most of any process. rate: tokens a second of one process. said: why
    it could not be computed, and how it could. limit: tokens of the packs that fit, where it did
    not. gap: mean |difference| of the two log-probs, nats a token. nats: those of a trained token.
    """

    tokens: int
    sequences: int
    seconds: float
    peak: float
    above: float
    loss: float
    finite: bool
    moves: bool
    said: str
    limit: int | None
    gap: float | None
    nats: float | None

    @property
    def rate(self) -> float:
        return self.tokens / max(self.seconds, 1e-6)


def measure(heaviest: Heaviest, context: Context) -> Measured:
    """Forward and backward, as often as it takes until kernels are built: once on a CPU."""
    settle(context.module)
    found = _pass(heaviest, context)
    if context.accelerator.device.type == "cuda" and not found.said:
        found = _pass(heaviest, context)
    rows = context.gathered([found])
    worst = max(rows, key=lambda row: row.seconds)
    gaps = [row.gap for row in rows if row.gap is not None]
    limits = [row.limit for row in rows if row.limit is not None]
    return Measured(
        tokens=worst.tokens,
        sequences=worst.sequences,
        seconds=worst.seconds,
        peak=max(row.peak for row in rows),
        above=max(row.above for row in rows),
        loss=sum(row.loss for row in rows) / len(rows),
        finite=all(row.finite for row in rows),
        moves=any(row.moves for row in rows),
        said=next((row.said for row in rows if row.said), ""),
        limit=min(limits, default=None),
        gap=max(gaps, default=None),
        nats=worst.nats,
    )


def _pass(heaviest: Heaviest, context: Context) -> Measured:
    module, pack = context.unwrapped, heaviest.pack
    backward = Backward(heaviest.stage, module=module, accelerator=context.accelerator)
    seen: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        if isinstance(output, tuple):
            seen.append(output[0].detach())

    module.train()
    for parameter in module.parameters():
        parameter.grad = None
    meter = Meter(context.accelerator.device.type)
    hook = module.register_forward_hook(keep)
    moments: list[Tensor] = []
    said, loss, figures = "", float("nan"), {"seconds": 0.0, "peak_mib": 0.0, "above_mib": 0.0}
    try:
        moments += _moments(module)  # the first step has none, and all others have
        meter.begin()
        sums = backward([pack], [filler(heaviest.columns)] * backward.missing(1, most=1))
        figures = meter.end()
        loss = float(sums["loss"])
    except TooLargeError as error:
        if backward.sharded:  # the others are in the midst of it
            raise
        said = str(error)
        if not isinstance(error, MomentsError):
            said += (
                f"; or --compute.token-budget below {heaviest.stage.config.compute.token_budget}"
            )
    finally:
        hook.remove()
        moments.clear()
    log_p = seen[0] if seen and not isinstance(heaviest.stage.config, Distill) else None
    whole = log_p is not None and len(log_p) == len(pack.target)
    gap = None
    if log_p is not None and whole and heaviest.old is not None:
        gap = float((log_p - heaviest.old).abs().mean())
    finite, moves = _gradient(module)
    return Measured(
        tokens=pack.tokens,
        sequences=pack.sequences,
        seconds=figures["seconds"],
        peak=figures["peak_mib"] * MIB / GIB,
        above=figures["above_mib"] * MIB / GIB,
        loss=loss,
        finite=bool(said) or (finite and bool(torch.isfinite(torch.tensor(loss)))),
        moves=bool(said) or moves,
        said=said,
        limit=backward.limit,
        gap=gap,
        nats=float(-log_p.mean()) if log_p is not None and whole else None,
    )


def _moments(module: torch.nn.Module) -> list[Tensor]:
    """As much memory as AdamW's moments will take of this process. Raises MomentsError."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    own = [one.to_local() if isinstance(one, DTensor) else one.detach() for one in trained]
    try:
        # Memory that is not written to is not taken.
        return [torch.empty_like(one).fill_(1.0) for one in own for _ in range(2)]
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise MomentsError(
            f"the optimizer's moments, {gib(2 * sum(one.nbytes for one in own))}, do not fit in "
            "memory beside the weights: train adapters alone with --lora.rank 16, or share them "
            "out over more GPUs with recipes/accelerate/fsdp2.yaml"
        ) from error


def _gradient(module: torch.nn.Module) -> tuple[bool, bool]:
    """Whether all of this process's part is finite, and whether any of it is not 0."""
    moves = False
    for parameter in module.parameters():
        grad = parameter.grad
        if isinstance(grad, DTensor):
            grad = grad.to_local()
        if grad is None or not grad.numel():
            continue
        low, high = (float(end) for end in torch.aminmax(grad))  # what is no number stays one
        if not (torch.isfinite(torch.tensor([low, high])).all()):
            return False, True
        moves = moves or low != 0.0 or high != 0.0
    return True, moves


def judge(one: Measured, heaviest: Heaviest, context: Context, found: Findings) -> None:
    """Findings on what was measured."""
    config = heaviest.stage.config
    what = f"a pack of {one.tokens:,} tokens, {one.sequences} sequences"
    if one.said:
        found.error("memory", one.said, "")
        return
    resident = "GPU memory" if context.accelerator.device.type == "cuda" else "resident memory"
    found.note(
        "longest batch",
        f"{what}, forward and backward: {one.seconds:.1f} s, {one.rate:,.0f} tokens/s, peak "
        f"{one.peak:.2f} GiB of {resident}, of them {one.above:.2f} GiB for the pass, and the "
        "optimizer's moments",
    )
    if one.limit is not None:
        found.warning(
            "memory",
            f"{what}, does not fit; packs of {one.limit:,} tokens do",
            f"--compute.token-budget {one.limit}. {LESS}",
        )
    if not one.finite:
        found.error(
            "loss",
            f"loss {one.loss:g} and its gradient on {what}: not finite before the first update",
            "look at the weights, at --compute.precision, and at what the rows hold",
        )
    elif isinstance(config, Distill) and abs(one.loss) < NOTHING:
        found.error("loss", "the student's distribution is the teacher's already: there is "
                    "nothing to learn", "give another --teacher or --model")  # fmt: skip
    elif not one.moves:
        found.error("gradient", f"it is 0 in every weight on {what}: nothing would train",
                    "look at --lora.target and at what the rows train")  # fmt: skip
    _judge_ratio(one, heaviest, context, found)


def _judge_ratio(one: Measured, heaviest: Heaviest, context: Context, found: Findings) -> None:
    config = heaviest.stage.config
    if one.gap is None or not one.finite:
        return
    bound = (SAME if heaviest.own else OTHERWISE)[config.compute.precision]
    pair = isinstance(config, Dpo | Kto)
    check = "reference" if pair else "importance ratio"
    said = ("the policy and its reference" if pair else "the log-probs before the first update "
            "and those in its loss")  # fmt: skip
    if one.gap <= bound:
        found.note(check, f"{said} agree: {one.gap:.2g} nats a token apart")
        return
    drops = _dropout(context.unwrapped)
    found.report(
        check,
        f"{said} are {one.gap:.2g} nats a token apart, and rounding makes less than {bound:g}: "
        + (f"{drops} is on while the loss is taken" if drops else "the ratio does not start at 1"),
        "set it to 0" if drops else "try --compute.layout padded, --compute.precision fp32",
        certain=not drops,
    )


def _dropout(module: torch.nn.Module) -> str:
    """What drops at random while training."""
    if any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in module.modules()):
        return "dropout (--lora.dropout, or the model's own)"
    model = getattr(module, "model", None)
    return "attention dropout" if getattr(getattr(model, "config", None), "attention_dropout", 0) \
        else ""  # fmt: skip
