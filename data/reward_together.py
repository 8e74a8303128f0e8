"""Does a completion earn the same alone as among others, and when it is asked about again?

A function that sorts, reverses or hands out one value for all is right for every single completion
and wrong for a batch, and a training run has nothing but batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from data.reward_probes import TEXTS, answers_in, applying
from data.reward_reads import columns_read
from data.reward_scores import FORMATS, RewardCheckError, drawn_rows, scores

ROWS = 8  # of which the first that it applies to is taken
ROUNDING = 0.02  # of all values' spread: a network's scores depend a little on the batch
NOISE = 2.0  # a ratio of variances, of texts to chance, that chance alone seldom exceeds
Values = list[float | None]


def check_together(
    rows: Sequence[Mapping[str, Any]], reward: Callable[..., Any], *, most: int = 16
) -> str:
    """What is to be doubted, or nothing. most: texts that are tried. Raises RewardCheckError where
    a batch's values are in another order than its completions or all the same though these differ,
    and where they are chance alone.
    """
    row = next(iter(applying(drawn_rows(rows, ROWS), reward)), None)
    if row is None:
        return ""
    texts = _texts(row)[:most]
    alone = [_values(reward, row, [text])[0] for text in texts]
    together, again = (_values(reward, row, texts) for _ in range(2))
    slack = ROUNDING * _spread([*alone, *together, *again])
    name = getattr(reward, "name", "it")
    if (place := _parted(together, again, slack)) is not None:
        said = (
            f"the reward {name} gives the completion {texts[place][:60]!r} first "
            f"{_show(together[place])} and then {_show(again[place])}"
        )
        if _chance([alone, together, again]) and not columns_read(reward, [row], texts[1:2]):
            raise RewardCheckError(
                f"{said}, and looks into no column: of {len(texts)} completions as unlike as can "
                "be none earns more than chance gives another. Check that it reads the completions"
            )
        return f"{said}: chance, or something that it remembers, is learnt along"
    if (place := _parted(alone, together, slack)) is None:
        return ""
    said = (
        f"the reward {name} gives the completion {texts[place][:60]!r} {_show(alone[place])} alone "
        f"and {_show(together[place])} among {len(texts) - 1} others"
    )
    return _of_batch(said, alone, together, slack)


def _of_batch(said: str, alone: Values, together: Values, slack: float) -> str:
    """What is wrong with a batch's values, which are the same each time."""
    if _parted(_in_order(alone), _in_order(together), slack) is None:
        raise RewardCheckError(
            f"{said}: it returns the values in another order than the completions. Return them one "
            "by one, in the order given, and change no list that is given"
        )
    # A share of the batch that differs is 0 for each alone, and 1 for each among unlike ones.
    if len(set(together)) == 1 and len(set(alone)) > 1:
        raise RewardCheckError(
            f"{said}, as it gives every completion of a batch the same value: there is nothing to "
            "compare. Check that it goes through all the completions"
        )
    return f"{said}: what is learnt depends on which completions are scored together"


def _parted(one: Values, other: Values, slack: float) -> int | None:
    """The first place where they differ by more than rounding."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        if mine is None or theirs is None:
            if mine is not theirs:
                return place
        elif abs(mine - theirs) > slack:
            return place
    return None


def _in_order(values: Values) -> Values:
    return sorted(values, key=lambda value: (value is None, value or 0.0))


def _spread(values: Values) -> float:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if known else 0.0


def _texts(row: Mapping[str, Any]) -> list[str]:
    """Unlike texts, some of which may be right."""
    answer = answers_in(row)[0]
    written = [form.replace("{solution}", answer) for form in FORMATS]
    unlike = list(TEXTS[:-1])  # the last is very long
    mixed = [text for pair in zip(unlike, written, strict=False) for text in pair]
    return list(dict.fromkeys([*mixed, *unlike[len(written) :]]))


def _values(reward: Callable[..., Any], row: Mapping[str, Any], texts: Sequence[str]) -> Values:
    found = scores(reward, [row] * len(texts), list(texts))
    # What a limit ended on a busy machine says nothing; a batch too short is named elsewhere.
    return [one.value if one.outcome in ("ok", "unscorable") else None for one in found]


def _show(value: float | None) -> str:
    return "None" if value is None else f"{value:.6g}"


def _chance(rounds: Sequence[Values]) -> bool:
    """Whether the texts' means differ no more than chance makes them, rounds aside: what remembers
    shifts all of a round alike.
    """
    kept = [column for column in zip(*rounds, strict=True) if None not in column]
    if len(kept) < 4:
        return False
    table = [[float(value) for value in column if value is not None] for column in kept]
    whole = fmean(value for row in table for value in row)
    texts = [fmean(row) - whole for row in table]
    shifts = [fmean(row[i] for row in table) - whole for i in range(len(rounds))]
    rest = sum(
        (value - whole - texts[i] - shifts[j]) ** 2
        for i, row in enumerate(table)
        for j, value in enumerate(row)
    ) / ((len(table) - 1) * (len(rounds) - 1))
    between = len(rounds) * sum(text**2 for text in texts) / (len(table) - 1)
    return rest > 0 and between < NOISE * rest
