"""Whether samples like these teach anything: findings over what a trial's groups showed.

An error where nothing at all can be learned from such samples, a warning where it looks so and the
few that were drawn may mislead, as fewer than `PROMPTS` prompts always may.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from align.config import Grpo, Rollouts, Sampling
from align.evaluation.rejection import advice, counts
from align.preflight.knowing import GUESSING
from align.preflight.sampled import Seen
from align.terminal.findings import Findings

MANY = 0.5  # a share that is worth a word
PROMPTS, COMPLETIONS = 4, 16  # from which on samples that are all alike are no accident
FROZEN = 0.01  # a temperature below which the likeliest token is always taken
NARROW = 0.5  # a --sampling.top-p below which samples that are alike are its doing
COLD = 0.5  # a temperature below which samples that are alike are its doing
SURE = 1e-2  # nats a token; below, the likeliest token is nearly always taken
FIRST = "train on worked examples first (an SFT stage), take easier prompts or a better model"


def figures(seen: Sequence[Seen], *, rate: float, found: Findings) -> None:
    """What was seen, as one note."""
    lengths = _flat(seen, "lengths")
    groups = [each for each in seen if len(each.texts) > 1]
    values = _known(seen)
    said = [
        f"{len(lengths)} completions of {len(seen)} prompts, {fmean(lengths):.0f} tokens each",
        f"{fmean(_flat(seen, 'truncated')):.0%} cut at the limit",
    ]
    if groups:
        said.append(f"{duplicates(groups):.0%} the same as another of their prompt")
    if groups and values:
        said.append(f"{_dead(groups):.0%} of the groups rewarded alike")
    if values:
        said.append(f"reward {fmean(values):.3g} ({min(values):.3g} to {max(values):.3g})")
    said += [f"{name} {fmean(known):.3g}" for name, known in _parts(seen).items() if known]
    found.note("samples", ", ".join([*said, f"{rate:,.0f} tokens/s a process"]))


def _dead(groups: Sequence[Seen]) -> float:
    """Share of the groups whose completions are rewarded alike."""
    return fmean([len(set(each.values)) == 1 for each in groups])


def duplicates(seen: Sequence[Seen]) -> float:
    """Share of the completions that another of their group repeats."""
    again = [count > 1 for each in seen for count in map(Counter(each.texts).get, each.texts)
             if count is not None]  # fmt: skip
    return fmean(again) if again else 0.0


def judge_texts(
    seen: Sequence[Seen],
    sampling: Sampling,
    *,
    chat: bool,
    guess: float,
    made: bool,
    found: Findings,
) -> bool:
    """The texts alone: cut, empty, gone on after their end, drawn blindly. guess: nats a token that
    guessing costs. made: the model's weights were meant to be random. Returns whether all were cut.
    """
    cut = _flat(seen, "truncated")
    texts = _flat(seen, "texts")
    limit = f"--sampling.max-tokens {sampling.max_tokens}"
    after = Counter(name for name in _flat(seen, "went_on") if name)
    name, count = after.most_common(1)[0] if after else ("", 0)
    nats = sum(_flat(seen, "nats")) / max(1, sum(_flat(seen, "lengths")))
    random = nats > GUESSING * guess
    if count >= MANY * len(cut) and all(cut) and not random:
        found.error(
            "end token",
            f"{count} of {len(cut)} completions go on after {name} until {limit} cuts them: the "
            "model ends its answers with it, and nothing stops there",
            f"name {name} as eos_token_id in the model's generation_config.json, or take a chat "
            "template that ends turns with it",
        )
    elif chat and fmean(cut) > MANY:
        found.warning(
            "truncated",
            f"{sum(cut)} of {len(cut)} completions were cut at {limit}",
            "raise it, or train the model to end its answers (an SFT stage)",
        )
    if not any(text.strip() for text in texts):
        found.error(
            "samples",
            f"all {len(texts)} completions are empty: the model ends at once",
            "look at the chat template and at what the model was trained on",
        )
    if random and not made:
        found.warning(
            "samples",
            f"{nats:.1f} nats a token, and guessing makes {guess:.1f}: the model writes at random",
            f"look at its weights, and at --sampling.temperature {sampling.temperature:g}",
        )
    return all(cut)


def judge_rewards(
    seen: Sequence[Seen],
    config: Rollouts,
    probes: Sequence[tuple[float | None, dict[str, float | None]]],
    *,
    all_cut: bool,
    found: Findings,
) -> None:
    """The rewards, and the texts as far as they make them alike. probes: what the reward gives to
    other texts, value and parts each.
    """
    _judge_outcomes(seen, found)
    values = _known(seen)
    groups = [each for each in seen if len(each.texts) > 1]
    nats = sum(_flat(seen, "nats")) / max(1, sum(_flat(seen, "lengths")))
    alike = bool(groups) and all(len(set(each.texts)) == 1 for each in groups)
    if alike or nats < SURE:
        _judge_alike(seen, config, nats=nats, alike=alike, found=found)
    elif groups and duplicates(groups) > MANY:
        found.warning(
            "duplicates",
            f"{duplicates(groups):.0%} of the completions repeat another of their prompt",
            f"raise --sampling.temperature {config.sampling.temperature:g}, or take prompts with "
            "more than a few possible answers",
        )
    if not values:
        said = f"None (does not apply) for all {len(_flat(seen, 'texts'))} completions"
        found.warning("reward", f"{said} of {len(seen)} prompts", "it applies to other rows: look "
                      "how many, and at its gates (rewards.Where)")  # fmt: skip
    elif len(set(values)) == 1 and len(values) > 1:
        enough = _enough(seen)
        _constant(values, probes, config, all_cut=all_cut, enough=enough, alike=alike, found=found)
    elif groups and isinstance(config, Grpo) and not alike and _dead(groups) == 1:
        found.warning(
            "dead groups",
            f"in all {len(groups)} groups every completion is rewarded alike, which moves nothing",
            "set --refill, take more --samples, or prompts of another difficulty",
        )
    if all_cut and isinstance(config, Grpo) and config.mask_truncated:
        found.report(
            "truncated",
            "all completions were cut, and --mask-truncated lets none of these train",
            "raise --sampling.max-tokens",
            certain=_enough(seen),
        )
    _judge_parts(seen, probes, whole=len(set(values)) > 1, found=found)


def _judge_alike(
    seen: Sequence[Seen], config: Rollouts, *, nats: float, alike: bool, found: Findings
) -> None:
    """What makes completions of a prompt the same: an error where it always does."""
    sampling = config.sampling
    heat = f"--sampling.temperature {sampling.temperature:g}"
    flag, cure, certain = heat, FIRST, False
    if sampling.top_k == 1:
        flag, cure = "--sampling.top-k 1", "leave it out: 0 takes any token"
        certain = isinstance(config, Grpo)
    elif sampling.temperature < COLD:
        flag, cure = heat, "give 1, which samples from the model as it is"
        certain = sampling.temperature < FROZEN or (alike and _enough(seen))
    elif sampling.top_p < NARROW:
        flag, cure = f"--sampling.top-p {sampling.top_p:g}", "give 1, which takes any token"
    said = f"at {flag} the likeliest token is always taken ({nats:.2g} nats a token)"
    if alike:
        said = f"all completions of each prompt are the same at {flag}"
    found.report("samples", f"{said}: there is nothing to compare", cure, certain=certain)


def _enough(seen: Sequence[Seen]) -> bool:
    """Whether so many were drawn that what all of them show is no accident."""
    return len(seen) >= PROMPTS and len(_flat(seen, "texts")) >= COMPLETIONS


def _constant(
    values: list[float],
    probes: Sequence[tuple[float | None, dict[str, float | None]]],
    config: Rollouts,
    *,
    all_cut: bool,
    enough: bool,
    alike: bool,
    found: Findings,
) -> None:
    said = f"{values[0]:g} for all {len(values)} completions"
    others = {value for value, _ in probes} - {values[0]}
    limit = f"--sampling.max-tokens {config.sampling.max_tokens}"
    if all_cut:
        found.report(
            "reward",
            f"{said}, all cut at {limit}: such steps teach nothing",
            "raise it",
            certain=enough,
        )
    elif probes and not others:
        found.error(
            "reward",
            f"{said}, and for whatever else it is given: it does not look at the text",
            "give a reward that tells good completions from bad ones",
        )
    elif not alike:
        found.warning("reward", f"{said}: such steps teach nothing", FIRST)


def _judge_outcomes(seen: Sequence[Seen], found: Findings) -> None:
    """Judging that failed."""
    ended = Counter(_flat(seen, "outcomes"))
    failed = sum(ended.values()) - ended["ok"]
    if failed < 0.1 * sum(ended.values()):
        return
    said = ", ".join(f"{count} {name}" for name, count in ended.items() if name != "ok")
    found.report(
        "reward",
        f"of {sum(ended.values())} completions {said}",
        "look at the solutions and at the reward's limits",
        certain=not ended["ok"],
    )


def _judge_parts(
    seen: Sequence[Seen],
    probes: Sequence[tuple[float | None, dict[str, float | None]]],
    *,
    whole: bool,
    found: Findings,
) -> None:
    """Parts that never change, where another text would have earned more. whole: the sum does."""
    for name, known in _parts(seen).items():
        if not whole or len(known) < 2 or len(set(known)) > 1:
            continue
        best = max((parts.get(name) or 0.0 for _, parts in probes), default=-math.inf)
        if best > known[0]:
            found.warning(
                "reward",
                f"its part {name} is {known[0]:g} for all {len(known)} completions",
                f"ask for it in the prompt, or {FIRST}",
            )


def judge_kept(chosen: Sequence[Sequence[str | None]], found: Findings) -> None:
    """What rejection sampling would keep. chosen: the reason against each prompt's samples, None
    where one is kept.
    """
    reasons = [reason for each in chosen for reason in each]
    kept = sum(reason is None for reason in reasons)
    found.note("kept", f"{kept} of {len(reasons)} samples would be kept")
    if kept or not reasons:
        return
    certain = {*reasons} <= {"truncated", "overlong", "unjudged", "empty"}
    found.report(
        "kept",
        f"not one of {len(reasons)} samples would be kept",
        advice(counts(chosen)),
        certain=certain,
    )


def _flat(seen: Sequence[Seen], name: str) -> list[Any]:
    return [value for each in seen for value in getattr(each, name)]


def _known(seen: Sequence[Seen]) -> list[float]:
    return [value for value in _flat(seen, "values") if value is not None]


def _parts(seen: Sequence[Seen]) -> dict[str, list[float]]:
    """Each part's known values."""
    rows = _flat(seen, "parts")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
