"""What both sides learn from: token ids and rows that each makes alike for itself.

Rows of the bench's own are everyday requests and answers strung together to lengths as in
preference data (requests of 20 to 170 words, answers of 30 to 220), for none of the sets that the
repository carries has any that long.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import data
from align.bench.case import Case, completion_lengths

PROMPT_WORDS = (20, 90, 45, 170, 60, 30, 120)
ANSWER_WORDS = (60, 150, 30, 220, 100)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Groups of one optimizer step: prompts once each, completions group by group."""

    prompts: list[list[int]]
    completions: list[list[int]]


def rollout(case: Case, tokenizer: Any) -> Rollout:
    """Random tokens of the given lengths."""
    draw = random.Random(f"{case.prompt}/{case.group}/{case.prompts}")
    special = set(tokenizer.all_special_ids)
    known = [i for i in range(len(tokenizer)) if i not in special]

    def tokens(count: int) -> list[int]:
        return [draw.choice(known) for _ in range(count)]

    completions = []
    for _ in range(case.prompts):
        lengths = completion_lengths(case.group)
        draw.shuffle(lengths)
        completions += [[*tokens(length - 1), tokenizer.eos_token_id] for length in lengths]
    prompts = [tokens(case.prompt) for _ in range(case.prompts)]
    return Rollout(prompts=prompts, completions=completions)


def given_rewards(completions: Sequence[Any], group: Sequence[int], **_: Any) -> list[float]:
    """TRL's protocol; `group`: completions of each one's prompt. No reward of a group is the mean
    of them, so every completion has an advantage and both sides compute them all.
    """
    return [math.sqrt(i % size + 1) for i, size in enumerate(group)]


def preference_rows(case: Case) -> Any:
    """A data set with prompt, chosen, rejected."""
    if case.rows:
        return _first(data.resolve(case.rows).rows(), case)
    return data.rows.dataset(
        {"prompt": row["prompt"], "chosen": row["good"], "rejected": row["bad"]}
        for row in _strung(case.count, case.words)
    )


def sft_rows(case: Case) -> Any:
    """A data set with prompt and completion: the chosen answers."""
    rows = preference_rows(case)
    return data.rows.dataset({"prompt": row["prompt"], "completion": row["chosen"]} for row in rows)


def _first(rows: Any, case: Case) -> Any:
    """Those first rows that are not too long, by their characters (four to a token)."""

    def size(row: dict[str, Any]) -> int:
        said = [row["prompt"], max(row["chosen"], row["rejected"], key=_characters)]
        return sum(_characters(one) for one in said)

    kept = (i for i in range(len(rows)) if size(rows[i]) <= 3.2 * case.max_tokens)
    return rows.select(list(itertools.islice(kept, case.count)))


def _characters(messages: Sequence[dict[str, str]]) -> int:
    return sum(len(one["content"]) for one in messages)


def _strung(count: int, factor: float) -> Iterator[dict[str, Any]]:
    rows = data.resolve("everyday?use=helpful").rows()
    requests = itertools.cycle([row["prompt"][-1]["content"] for row in rows])
    sides = {
        name: itertools.cycle([row[name][-1]["content"] for row in rows])
        for name in ("chosen", "rejected")
    }
    for i in range(count):
        asked = PROMPT_WORDS[i % len(PROMPT_WORDS)]
        words = ANSWER_WORDS[i % len(ANSWER_WORDS)]
        other = ANSWER_WORDS[(i * 3 + 1) % len(ANSWER_WORDS)]
        yield {
            "prompt": data.rows.user(_string(requests, factor * asked)),
            "good": data.rows.assistant(_string(sides["chosen"], factor * words)),
            "bad": data.rows.assistant(_string(sides["rejected"], factor * other)),
        }


def _string(texts: Iterator[str], words: float) -> str:
    """Texts one after the other until there are so many words."""
    taken: list[str] = []
    while sum(len(text.split()) for text in taken) < words:
        taken.append(next(texts))
    return " ".join(taken)
