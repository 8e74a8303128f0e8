"""Whether a sampler of another process holds the model that trains: by the log-probs it gives.

What stays behind at a sync, as a head that the server keeps apart from the embedding it is tied to,
is not seen while the server still holds the weights that the run began with: it shows as the others
move on. So a rollout is compared again and again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from align.packing import Completion, Group, Pack
from align.rollout import EngineError, Sample
from align.stages.context import Context
from align.stages.rolled import Rolled

EVERY = 32  # syncs between two comparisons
MOST = 0.15  # nats a token, on average; bfloat16 makes about 0.045 on a model of 135M parameters
SPREAD = 0.3  # nats; five standard deviations of one token's
NOTHING = Sample(ids=[0], logprobs=[0.0], truncated=True)


def due(sync: int) -> bool:
    """Whether what is sampled after that sync, from 1 in this process, is to be compared: often at
    first, when the server is new to the run, then every EVERY.
    """
    return sync % EVERY == 0 or sync & (sync - 1) == 0


def bound(count: int, temperature: float) -> float:
    """Nats a token that rounding cannot explain, over that many tokens.

    A temperature divides the logits, and with them the differences of both kinds.
    """
    return (MOST + SPREAD / math.sqrt(count)) / temperature


def check_engine(
    groups: Sequence[Rolled],
    context: Context,
    packed: Callable[[list[Group]], list[Pack]],
    *,
    temperature: float,
) -> None:
    """Compare one pack of each process's groups, sampled with the weights that the policy has now,
    with its own log-probs.

    Raises EngineError on every process where they are further apart than rounding explains.
    """
    total, count = gap(groups, context, packed)
    # Written so that what is no number does not pass.
    if count and not total <= bound(round(count), temperature) * count:
        raise EngineError(
            f"the server's log-probs are {total / count:.2f} nats a token from the trainer's, and "
            f"rounding makes less than {bound(round(count), temperature):.2f}: it does not hold "
            f"the weights that it was sent. Start it with --model {context.model_path} --dtype "
            "bfloat16, not quantized, and go on with --resume",
            shared=True,
        )


@torch.no_grad()
def gap(
    groups: Sequence[Rolled], context: Context, packed: Callable[[list[Group]], list[Pack]]
) -> tuple[float, float]:
    """How far the sampler's log-probs are from the policy's own, over one pack of each process's
    groups: the sum of all absolute differences in nats, and the number of tokens.
    """
    laid_out = [_group(each.prompt, each.samples) for each in groups] or [_group([0], [NOTHING])]
    # A process without a group takes part too: the policy may be spread over all of them.
    one = packed(laid_out)[0].to(context.accelerator.device)
    context.policy.eval()
    gaps = (context.policy(one, entropy=False)[0] - one.columns["sampler"]).abs()
    total, count = context.total(*((gaps.sum().item(), len(gaps)) if groups else (0.0, 0.0)))
    return total, count


def _group(prompt: Sequence[int], samples: Sequence[Sample]) -> Group:
    completions = [Completion(ids=one.ids, columns={"sampler": one.logprobs}) for one in samples]
    return Group(prompt=prompt, completions=completions)
