"""Whether a sampler of another process holds the model that trains: by the log-probs it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from align.packing import Completion, Group, Pack
from align.rollout import EngineError, Sample
from align.stages.context import Context
from align.stages.rolled import Rolled

FOREIGN = 0.5  # nats a token; bfloat16 makes about 0.05, and so much at most an update or two
NOTHING = Sample(ids=[0], logprobs=[0.0], truncated=True)


@torch.no_grad()
def check_engine(
    groups: Sequence[Rolled], context: Context, packed: Callable[[list[Group]], list[Pack]]
) -> None:
    """Compare one pack of each process's first group with the policy's own log-probs.

    Raises EngineError on every process where they are further apart than rounding explains.
    """
    prompt, samples = (groups[0].prompt, groups[0].samples) if groups else ([0], [NOTHING])
    completions = [Completion(ids=one.ids, columns={"sampler": one.logprobs}) for one in samples]
    # A process without a group takes part too: the policy may be spread over all of them.
    one = packed([Group(prompt=prompt, completions=completions)])[0].to(context.accelerator.device)
    context.policy.eval()
    gaps = (context.policy(one, entropy=False)[0] - one.columns["sampler"]).abs()
    total, count = context.total(*((gaps.sum().item(), len(gaps)) if groups else (0.0, 0.0)))
    if total > FOREIGN * count:
        raise EngineError(
            f"the server's log-probs are {total / count:.2f} nats a token from the trainer's, and "
            f"rounding makes about 0.05: it does not hold the weights that it was sent. Start it "
            f"with {context.model_path}"
        )
