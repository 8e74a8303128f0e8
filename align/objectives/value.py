"""The critic's regression loss."""

from torch import Tensor

from align.objectives.reduce import at_least_float32


def value_loss(
    values: Tensor, *, returns: Tensor, old_values: Tensor | None = None, clip: float | None = None
) -> Tensor:
    """Half of (value - return) squared, unreduced, the shape of values.

    With `clip` the new value is also held within `clip` of the value at sampling time, and the
    larger of the two losses counts (the PPO reference code; a critic moved too far by one rollout
    gains nothing more). The returns
    and the old values are constants: a return computed from the critic must not pull its own target
        along.

    Raises ValueError where only one of clip and old_values is given.
    """
    if (clip is None) != (old_values is None):
        raise ValueError(
            "clipping needs both clip= and old_values=; pass both, or neither for the plain loss"
        )
    values = at_least_float32(values)
    target = at_least_float32(returns).detach()
    loss = 0.5 * (values - target).square()
    if clip is None or old_values is None:
        return loss
    old = at_least_float32(old_values).detach()
    held = old + (values - old).clamp(-clip, clip)
    return loss.maximum(0.5 * (held - target).square())
