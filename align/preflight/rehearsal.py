"""A reward called on single completions of the model before it gets all of them.

A call with many completions is given minutes, as nobody knows how long a function of a user's
takes: one that hangs on what a model writes would be named after those. One completion alone takes
seconds or hangs. So does one by one show whether it goes on, until it has shown that it is slow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import zip_longest

import data
import rewards
from align.stages.checks import without_models
from align.stages.rolled import RewardError, Rolled, Roller, judged
from data.reward_scores import is_ours, leaves, patience_of
from rewards.functions import BatchFunction, PerSample

ONE = 20.0  # seconds for one completion, where nobody has said how long it takes
ALL = 20.0  # seconds after which the rest is left to the call with all


def one_by_one(roller: Roller, groups: Sequence[Rolled]) -> None:
    """Raises RewardError where it does not come back from one of them; what else it does wrong, the
    call with all shows.
    """
    reward = without_models(roller.reward)
    if not any(_unlimited(leaf) for leaf in leaves(reward)):
        return
    patience, begun = patience_of(reward, unsaid=ONE), time.monotonic()
    for group, place in _in_turn(groups):
        if time.monotonic() - begun > ALL:
            return
        row, text = roller.prompts.rows[group.row], group.texts[place]
        completion = text if isinstance(row["prompt"], str) else data.rows.assistant(text)
        ids = [group.samples[place].ids]
        try:
            judged(reward, [completion], ids, [row], roller.prompts.columns, patience=patience)
        except RewardError as error:
            if not isinstance(error.__cause__, rewards.ContainedError):
                return
            raise RewardError(f"{error} (the completion {text[:60]!r})") from error


def _unlimited(leaf: object) -> bool:
    """Whether it is a user's code and runs in this process."""
    return isinstance(leaf, BatchFunction) or not (is_ours(leaf) or isinstance(leaf, PerSample))


def _in_turn(groups: Sequence[Rolled]) -> list[tuple[Rolled, int]]:
    """One completion of each group, then another."""
    each = [[(group, place) for place in range(len(group.texts))] for group in groups]
    return [one for turn in zip_longest(*each) for one in turn if one is not None]
