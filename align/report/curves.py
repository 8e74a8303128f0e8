"""Which logged keys become which panel. A key nobody named here is drawn too, under "Other".

Shapes: a panel holds one series of n points, steps and values being lists of length n.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from align.report.folder import Row

# Not curves: where a row stands, and the seconds, which the time split draws.
BOOKKEEPING = {"step", "steps", "time", "seconds"}
# key: (section, title, unit). The order is the page's order.
KNOWN = {
    "reward": ("Reward", "Reward", "reward"),
    "reward_std": ("Reward", "Spread of rewards", "standard deviation"),
    "accuracy": ("Behaviour", "Accuracy", "share right"),
    "samples": ("Sampling", "Samples", "samples"),
    "kept": ("Sampling", "Kept", "samples"),
    "length": ("Behaviour", "Completion length", "tokens"),
    "truncated": ("Behaviour", "Truncated", "share of completions"),
    "dead_groups": ("Behaviour", "Dead groups", "share of groups"),
    "margin": ("Preference", "Margin", "chosen less rejected"),
    "chosen": ("Preference", "Chosen", "reward"),
    "rejected": ("Preference", "Rejected", "reward"),
    "score": ("Preference", "Mean score", "score"),
    "kl": ("Policy", "KL to reference", "nats per token"),
    "kl/sequence": ("Policy", "KL, whole sequence", "nats per sequence"),
    "beta": ("Policy", "KL coefficient", "reward per nat"),
    "entropy": ("Policy", "Entropy", "nats per token"),
    "clip_fraction": ("Policy", "Clip fraction", "share of tokens"),
    "value": ("Critic", "Value", "mean predicted return"),
    "return": ("Critic", "Return", "mean return"),
    "value_loss": ("Critic", "Value loss", "half the squared error"),
    "explained_variance": ("Critic", "Explained variance", "share of the returns' variance"),
    "value_clip_fraction": ("Critic", "Value clip fraction", "share of tokens"),
    "warmup": ("Critic", "Critic warm-up", "1 while the critic alone learns"),
    "loss": ("Optimization", "Loss", "loss"),
    "grad_norm": ("Optimization", "Gradient norm", "L2 norm"),
    "lr": ("Optimization", "Learning rate", "rate"),
    "tokens": ("Optimization", "Trained tokens", "tokens per step"),
    "computed_tokens": ("Optimization", "Computed tokens", "tokens per step"),
    "most_common": ("Behaviour", "Most common completion", "share of completions"),
}
RAW_ACCURACY = ("Behaviour", "Raw accuracy", "share of answers right")
IMPLICIT = "β × log-ratio, nats"  # the implicit reward of DPO and KTO
# The same key means another thing in another kind of stage.
OF_KIND = {
    "sample": {"tokens": ("Sampling", "Sampled tokens", "tokens per batch")},
    "distill": {
        "loss": ("Optimization", "Divergence from the teacher", "nats per token"),
        "kl/forward": ("Policy", "Forward KL, teacher to student", "nats per token"),
        "kl/reverse": ("Policy", "Reverse KL, student to teacher", "nats per token"),
        "on_policy": ("Behaviour", "Completed by the student", "share of prompts"),
    },
    "grpo": {"accuracy": RAW_ACCURACY},
    "ppo": {"accuracy": RAW_ACCURACY},
    "reward_model": {
        "accuracy": ("Preference", "Pairwise accuracy", "share of pairs right"),
        "margin": ("Preference", "Margin of scores", "chosen less rejected"),
    },
    "dpo": {
        "accuracy": ("Preference", "Pairwise accuracy, implicit rewards", "share of pairs right"),
        "margin": ("Preference", "Margin of implicit rewards", "chosen less rejected"),
        "chosen": ("Preference", "Implicit reward, chosen", IMPLICIT),
        "rejected": ("Preference", "Implicit reward, rejected", IMPLICIT),
    },
    "kto": {
        "kl": ("Preference", "KL reference point", "nats per sequence"),
        "margin": ("Preference", "Margin of implicit rewards", "desirable less undesirable"),
        "chosen": ("Preference", "Implicit reward, desirable", IMPLICIT),
        "rejected": ("Preference", "Implicit reward, undesirable", IMPLICIT),
    },
}
FAMILIES = {
    "reward": ("Reward parts", "reward"),
    "mismatch": ("Policy", "sampler against trainer"),
    "rejected": ("Sampling", "samples"),
}
SECTIONS = (
    "Reward",
    "Reward parts",
    "Sampling",
    "Behaviour",
    "Preference",
    "Policy",
    "Critic",
    "Optimization",
    "Other",
)
TIME_ORDER = ("sample", "score", "train", "sync")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One curve. A value that is not finite stays as NaN, so that the line breaks there."""

    key: str
    section: str
    title: str
    unit: str
    steps: list[int]
    values: list[float]

    @property
    def broken(self) -> int:
        return sum(not math.isfinite(value) for value in self.values)

    @property
    def last(self) -> float:
        return self.values[-1]


@dataclass(frozen=True, kw_only=True)
class Split:
    """What each step took, in `unit`, by part: `parts[name]` is as long as `steps`."""

    unit: str
    steps: list[int]
    parts: dict[str, list[float]]

    def shares(self) -> dict[str, tuple[float, float]]:
        """Of each part: the mean of a step, and the share of the whole."""
        sums = {name: sum(values) for name, values in self.parts.items()}
        whole = sum(sums.values()) or 1.0
        return {name: (total / len(self.steps), total / whole) for name, total in sums.items()}


def number(value: object) -> float | None:
    """A number as float, infinities as NaN; None for what is not a number."""
    if not isinstance(value, int | float):
        return None
    # Beyond 1e100 a chart's arithmetic overflows, and it tells nothing that NaN does not.
    return float(value) if abs(value) < 1e100 else math.nan


def panels(metrics: Sequence[Row], *, kind: str = "") -> dict[str, list[Panel]]:
    """Section name → its panels, for every numeric key of the log, in the page's order.

    kind: that of the stage, which decides what `accuracy`, `margin` and the like mean.
    """
    named = KNOWN | OF_KIND.get(kind, {})
    keys = dict.fromkeys(key for row in metrics for key in row)
    known = [key for key in named if key in keys]
    families = [key for key in keys if key not in named and key.split("/")[0] in FAMILIES]
    other = [key for key in keys if key not in named and key not in families]
    found: dict[str, list[Panel]] = {section: [] for section in SECTIONS}
    for key in known + families + other:
        panel = _panel(key, metrics, named.get(key) or _unnamed(key))
        if panel is not None:
            found[panel.section].append(panel)
    return {section: group for section, group in found.items() if group}


def _panel(key: str, metrics: Sequence[Row], words: tuple[str, str, str]) -> Panel | None:
    if key in BOOKKEEPING or key.startswith("seconds/"):
        return None
    measured = [(row["step"], number(row.get(key))) for row in metrics]
    series = [(step, value) for step, value in measured if value is not None]
    if not series:
        return None
    section, title, unit = words
    return Panel(
        key=key,
        section=section,
        title=title,
        unit=unit,
        steps=[step for step, _ in series],
        values=[value for _, value in series],
    )


def _unnamed(key: str) -> tuple[str, str, str]:
    family, _, part = key.partition("/")
    section, unit = FAMILIES.get(family, ("Other", "value")) if part else ("Other", "value")
    title = part if family == "reward" and part else key
    words = title.replace("/", " / ").replace("_", " ")
    return section, words[:1].upper() + words[1:], unit


def time_split(metrics: Sequence[Row]) -> Split | None:
    """sample, score, train, sync, whatever else was timed, and `other`: the total less these."""
    rows = [row for row in metrics if any(key.startswith("seconds") for key in row)]
    if not rows:
        return None
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("seconds/"))
    named = [key.partition("/")[2] for key in keys if key != "seconds/total"]
    order = [name for name in TIME_ORDER if name in named]
    order += [name for name in named if name not in order]
    parts = {name: [_seconds(row.get(f"seconds/{name}")) for row in rows] for name in order}
    timed = (
        [sum(step) for step in zip(*parts.values(), strict=True)] if parts else [0.0] * len(rows)
    )
    totals = [_seconds(row.get("seconds/total", row.get("seconds"))) for row in rows]
    rest = [max(0.0, total - part) for total, part in zip(totals, timed, strict=True)]
    if sum(rest) > 0:
        parts["other" if order else "total"] = [
            old + new for old, new in zip(parts.get("other", [0.0] * len(rest)), rest, strict=True)
        ]
    if not parts:
        return None
    return Split(unit="seconds", steps=[row["step"] for row in rows], parts=parts)


def token_split(metrics: Sequence[Row]) -> Split | None:
    """Tokens that a step computed: those of completions that trained, and what they stand on.

    `computed_tokens` counts what went through the model, each prompt once for its whole group;
    `tokens` those of it that the loss is taken over. The rest are prompts.
    """
    rows = [row for row in metrics if {"tokens", "computed_tokens"} <= row.keys()]
    counts = [(number(row["tokens"]), number(row["computed_tokens"])) for row in rows]
    if not rows or any(not (t is not None and c is not None and 0 <= t <= c) for t, c in counts):
        return None
    trained = [t or 0.0 for t, _ in counts]
    return Split(
        unit="tokens",
        steps=[row["step"] for row in rows],
        parts={
            "completions, trained on": trained,
            "prompts, computed once a group": [
                (c or 0) - t for t, (_, c) in zip(trained, counts, strict=True)
            ],
        },
    )


def _seconds(value: object) -> float:
    seconds = number(value)
    return max(0.0, seconds) if seconds is not None and math.isfinite(seconds) else 0.0
