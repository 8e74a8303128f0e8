"""What a reward model learns from: of two completions of a prompt, the preferred one scores higher.

Shapes: N pairs, one score a completion, read at its last token. Gradients flow through the scores;
a margin is a constant. Both functions are unreduced and equal the terms of TRL 1.16's RewardTrainer
once their mean over the pairs is taken.
"""

import torch.nn.functional as F
from torch import Tensor

from align.objectives.reduce import at_least_float32


def bradley_terry(*, chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """-ln sigmoid(chosen - rejected - margin), [N] (2009.01325; margin: 2307.09288, eq. 2).

    chosen, rejected: [N] scores. A difference of scores is a log-odds: sigmoid of it is the
        probability the model gives to the preference.
    margin: [N], how much better the chosen completion is said to be, None for none.

    Raises ValueError where the three are not one number a pair.
    """
    margins = {} if margin is None else {"margin": margin}
    check_one_each(chosen=chosen, rejected=rejected, **margins)
    difference = at_least_float32(chosen) - at_least_float32(rejected)
    if margin is not None:
        difference = difference - margin.detach()
    return -F.logsigmoid(difference)


def centring(*, chosen: Tensor, rejected: Tensor, coefficient: float) -> Tensor:
    """coefficient * (chosen + rejected)^2, [N]: a term to add to `bradley_terry` (2312.09244).

    A constant added to every score of a prompt leaves `bradley_terry` unchanged; this pulls the
    mean of a pair's scores towards 0. TRL's `center_rewards_coefficient`; it recommends 0.01.

    Raises ValueError for a negative coefficient, and where the scores are not one number a pair.
    """
    check_one_each(chosen=chosen, rejected=rejected)
    if not coefficient >= 0.0:
        raise ValueError(
            f"coefficient={coefficient} would push scores apart without bound; "
            "pass 0 for no centring, 0.01 is usual"
        )
    return coefficient * (at_least_float32(chosen) + at_least_float32(rejected)).square()


def check_one_each(**named: Tensor) -> None:
    """Raise ValueError unless all are [N] with the same N: [N] and [N, 1] would make [N, N]."""
    shapes = {name: list(values.shape) for name, values in named.items()}
    first = next(iter(shapes.values()))
    if len(first) != 1 or any(shape != first for shape in shapes.values()):
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"one number each is needed, all of the same shape [N], got {found}; "
            "a classifier's logits [N, 1] need .squeeze(-1)"
        )
