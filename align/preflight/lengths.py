"""Do rows and answers fit: under the limits of the configuration, into the model's positions, into
the token budget?
"""

from __future__ import annotations

from typing import Any

import rewards
from align import models
from align.config import Distill, Rollouts, Sample
from align.preflight.contents import spoken
from align.preflight.subject import SAMPLING, Subject, longest
from align.stages.rolled import as_reward
from align.terminal.findings import Findings
from rewards.extract import gold_of

MUCH = 0.1  # a share left out that is worth a warning
NEARLY_ALL = 0.95


def check(subject: Subject, found: Findings) -> None:
    if subject.read:
        _left_out(subject, found)
        _budget(subject, found)
        _answers(subject, found)
        _cut(subject, found)
    _positions(subject, found)


def _left_out(subject: Subject, found: Findings) -> None:
    config, readings = subject.config, subject.read
    if isinstance(config, SAMPLING):
        limit, flag, what = (
            config.sampling.max_prompt_tokens,
            "--sampling.max-prompt-tokens",
            "prompts",
        )
    else:
        limit, flag, what = config.max_tokens, "--max-tokens", "rows"
    lengths = sorted(reading.length for reading in readings)
    share = sum(length > limit for length in lengths) / len(lengths)
    sample = "" if len(lengths) == len(subject.rows) else f" ({len(lengths):,} drawn by lot)"
    middle, most = lengths[len(lengths) // 2], lengths[-1]
    said = (
        f"{share:.0%} of the {what} of {config.data.name}{sample} are longer than {flag} {limit} "
        f"and left out; half have at most {middle:,} tokens, the longest {most:,}"
    )
    fits = f"{flag} {lengths[int(0.98 * (len(lengths) - 1))]} takes nearly all"
    if share == 1 or share > NEARLY_ALL:
        found.error("length", said, fits)
    elif share > MUCH:
        found.warning("length", said, fits)
    elif share:
        found.note("length", f"{share:.1%} of the {what}{sample} are longer than {flag} {limit}")


def _positions(subject: Subject, found: Findings) -> None:
    """Of every model that reads whole sequences: positions that it was not made for give nonsense
    without a word.
    """
    config, wanted = subject.config, longest(subject.config)
    known = {"model": subject.model_config}
    for role in ("teacher", "critic_model"):
        if path := subject.place(getattr(config, role, "")):
            trust = config.trust_remote_code
            known[role.removesuffix("_model")] = models.load_config(path, trust_remote_code=trust)
    flags = "--max-tokens"
    if isinstance(config, SAMPLING):
        flags = "--sampling.max-prompt-tokens and --sampling.max-tokens together"
    for role, of_model in known.items():
        room = getattr(of_model.get_text_config(), "max_position_embeddings", None)
        if room is not None and wanted > room:
            found.error(
                "positions",
                f"the {role} has {room} positions; {flags} must not exceed them, and are {wanted}",
                f"lower {flags.removesuffix(' together').replace(' and ', ' or ')}, or give a "
                f"{role} with a longer context",
            )


def _budget(subject: Subject, found: Findings) -> None:
    config = subject.config
    if isinstance(config, Sample):
        return
    after = config.sampling.max_tokens if isinstance(config, Rollouts | Distill) else 0
    limit = longest(config)
    lengths = [min(reading.length + after, limit) for reading in subject.read]
    budget = config.compute.token_budget
    over = sum(length > budget for length in lengths)
    if over:
        found.warning(
            "token budget",
            f"{over:,} of {len(lengths):,} sequences can be longer than --compute.token-budget "
            f"{budget}, up to {max(lengths):,} tokens: each is computed alone, and takes the "
            "memory of its own length",
            f"--compute.token-budget {max(lengths)}",
        )


def _cut(subject: Subject, found: Findings) -> None:
    """Answers of the data that a student is to follow, and that lose their end."""
    config = subject.config
    if not isinstance(config, Distill) or config.on_policy:
        return
    limit = config.sampling.max_tokens
    lengths = sorted(
        len(subject.encode(answer)) + 1
        for _, row in subject.drawn
        for answer in spoken(row).answers.values()
    )
    share = sum(length > limit for length in lengths) / len(lengths)
    if share > MUCH:
        found.report(
            "length",
            f"{share:.0%} of the rows' own completions are longer than --sampling.max-tokens "
            f"{limit} and cut there: the student never sees how they end",
            f"--sampling.max-tokens {lengths[int(0.98 * (len(lengths) - 1))]} takes nearly all",
            certain=share > NEARLY_ALL,
        )


def _answers(subject: Subject, found: Findings) -> None:
    """That the shortest right answer fits into a completion, where answers are held against golds
    by value: for a reward of one's own the solution may be anything, such as a program.
    """
    config = subject.config
    if not isinstance(config, Rollouts | Sample) or not _wants(config.reward, rewards.Accuracy):
        return
    reward = as_reward(config.reward)
    form = "<think></think><answer>{}</answer>" if _wants(config.reward, rewards.Format) else "{}"
    golds = [
        gold_of(row["solution"]) or row["solution"]
        for _, row in subject.drawn
        if isinstance(row.get("solution"), str) and "solution" in reward.needed(row)
    ]
    if not golds:
        return
    encode = subject.tokenizer
    shortest = sorted(
        1 + len(encode(form.format(gold), add_special_tokens=False)["input_ids"]) for gold in golds
    )
    limit = config.sampling.max_tokens
    short = sum(length > limit for length in shortest)
    if short > len(shortest) / 2:
        found.error(
            "completion length",
            f"--sampling.max-tokens {limit} has no room for {short:,} of {len(shortest):,} gold "
            f"answers, which take up to {shortest[-1]:,} tokens"
            + (" in the form that the format reward wants" if form != "{}" else ""),
            f"--sampling.max-tokens {max(4 * shortest[-1], 64)}",
        )


def _wants(reward: Any, kind: type) -> bool:
    return isinstance(reward, kind) or any(
        _wants(inner, kind) for inner in getattr(reward, "inner", ())
    )
