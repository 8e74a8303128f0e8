"""Rejection sampling's choice: which samples are kept, why each other one is not, and the rows.

A pure function of what was sampled (`sampled.jsonl`), the configuration and the general rows. Each
rejected sample has one reason, the first that applies:

    truncated       cut at the limit of tokens
    overlong        longer than keep.max_tokens
    empty           nothing but white space
    unclean         no answer or no reasoning to write in the common format
    unjudged        the reward could not judge it (an unreadable solution, a time limit)
    wrong           judged, and not right
    low_reward      not judged for correctness, and rewarded with less than keep.min_reward
    format          not in the format that was asked for
    language        reasons in another language, or in several
    repetition      repeats itself
    duplicate       a near-duplicate of one that was kept, of this prompt or of any
    quota           good, but the prompt has its number
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import rewards
from align.config import Keep
from align.evaluation.duplicates import Seen
from rewards.format import follows_format
from rewards.language_consistency import reasoning_of

REASONS = ("truncated", "overlong", "empty", "unclean", "unjudged", "wrong", "low_reward", "format",
           "language", "repetition", "duplicate", "quota")  # fmt: skip
# What to change against each; the last two leave nothing empty.
ADVICE = {
    "truncated": "raise --sampling.max-tokens",
    "overlong": "raise --keep.max-tokens",
    "empty": "ask with another prompting",
    "unclean": "ask for reasoning and an answer with another prompting, or leave out --clean",
    "unjudged": "look at the solutions, which the reward cannot read",
    "wrong": "draw more --samples, take easier problems or a better model",
    "low_reward": "lower --keep.min-reward",
    "format": "leave out --keep.format, or add --clean True",
    "language": "lower --keep.language-share, or give --keep.language",
    "repetition": "raise --keep.repetition, or sample at a higher temperature",
}

Line = Mapping[str, Any]
"""One prompt with its samples, a line of `sampled.jsonl`."""


class Selection:
    """Goes through prompts in order; what was kept of earlier ones decides what is a duplicate."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.seen = Seen(keep.duplicates)
        self.repetition = rewards.Repetition(n=3, max_penalty=-1.0)

    def choose(self, line: Line) -> list[str | None]:
        """For each of the prompt's samples the reason against it, None where it is kept."""
        samples = line["samples"]
        reasons = [self._against(sample) for sample in samples]
        good = [i for i, reason in enumerate(reasons) if reason is None]
        kept = 0
        for i in sorted(good, key=lambda i: self._rank(samples[i], i)):
            if kept == self.keep.per_prompt:
                reasons[i] = "quota"
            elif self.seen.is_new(question(line["prompt"]), samples[i]["text"]):
                kept += 1
            else:
                reasons[i] = "duplicate"
        return reasons

    def _against(self, sample: Mapping[str, Any]) -> str | None:
        keep, text = self.keep, sample["text"]
        if sample["truncated"]:
            return "truncated"
        if keep.max_tokens and sample["length"] > keep.max_tokens:
            return "overlong"
        if not text.strip():
            return "empty"
        if sample.get("unclean"):
            return "unclean"
        if (reason := self._by_reward(sample)) is not None:
            return reason
        if keep.format and not follows_format(text):
            return "format"
        if keep.language and self._in_language(text) < keep.language_share:
            return "language"
        return "repetition" if -self.repetition([text])[0] > keep.repetition else None

    def _by_reward(self, sample: Mapping[str, Any]) -> str | None:
        if sample["outcome"] != "ok" or sample["reward"] is None:
            return "unjudged"
        if sample["correct"] is not None:
            return None if sample["correct"] == 1.0 else "wrong"
        return None if sample["reward"] >= self.keep.min_reward else "low_reward"

    def _in_language(self, text: str) -> float:
        """Share of the reasoning's letters; reasoning in figures alone is in every language."""
        if not any(map(str.isalpha, reasoning_of(text))):
            return 1.0
        return rewards.LanguageConsistency(language=self.keep.language)([text])[0]

    def _rank(self, sample: Mapping[str, Any], i: int) -> tuple[float, int, int]:
        best = -sample["reward"] if self.keep.take == "best" else 0.0
        return best, sample["length"], i


def question(prompt: Any) -> str:
    """A prompt's last turn, or the plain string."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def counts(chosen: Sequence[Sequence[str | None]]) -> dict[str, int]:
    """Samples kept and rejected by each reason, in the reasons' order, those that occur."""
    found = Counter(reason for reasons in chosen for reason in reasons)
    return {"kept": found[None]} | {name: found[name] for name in REASONS if found[name]}


def advice(found: Mapping[str, int]) -> str:
    """What to change, the commonest reason first."""
    known = sorted((name for name in found if name in ADVICE), key=lambda name: -found[name])
    return "; ".join(f"{found[name]:,} {name}: {ADVICE[name]}" for name in known)


def kept_rows(
    line: Line, reasons: Sequence[str | None], about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a prompt's kept samples. about: what their provenance says besides."""
    rows = []
    for i, (sample, reason) in enumerate(zip(line["samples"], reasons, strict=True)):
        if reason is None:
            origin = {**about, "row": line["row"], "sample": i}
            origin |= {name: sample[name] for name in ("seed", "reward", "length")}
            rows.append(
                {**_dialogue(line["prompt"], sample["text"]), "solution": line["solution"],
                 "provenance": origin}
            )  # fmt: skip
    return rows


def _dialogue(prompt: Any, text: str) -> dict[str, Any]:
    """`messages`; apart where a turn of the prompt, which is not ours, would be trained too."""
    if isinstance(prompt, str):
        return {"prompt": prompt, "completion": text}
    answer = [{"role": "assistant", "content": text}]
    if any(turn["role"] == "assistant" for turn in prompt):
        return {"prompt": prompt, "completion": answer}
    return {"messages": [*prompt, *answer]}


def general_rows(
    rows: Sequence[Mapping[str, Any]], wanted: int, about: Mapping[str, Any], *, seed: int
) -> list[dict[str, Any]]:
    """So many of the general rows, drawn by the seed, in the same columns."""
    drawn = random.Random(f"general {seed}").sample(range(len(rows)), wanted)
    return [
        {
            **_columns(rows[i]),
            "solution": rows[i].get("solution"),
            "provenance": {**about, "row": i},
        }
        for i in drawn
    ]


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    if row.get("messages") is not None:
        return {"messages": row["messages"]}
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) or len(completion) > 1:
        return {"prompt": prompt, "completion": completion}
    return _dialogue(prompt, completion[0]["content"])


def general_count(kept: int, share: float) -> int:
    """How many rows are `share` of all when `kept` are the rest, to the nearest row."""
    return round(kept * share / (1 - share))


def mixed(kept: Sequence[Any], general: Sequence[Any]) -> list[Any]:
    """Both in their own order, the fewer spread evenly among the more."""
    placed = [
        ((i + 0.5) / len(rows), part, row)
        for part, rows in enumerate((kept, general))
        for i, row in enumerate(rows)
    ]
    return [row for _, _, row in sorted(placed, key=lambda each: each[:2])]
