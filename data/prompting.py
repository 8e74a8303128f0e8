"""How a question is asked while answers are sampled; the data written holds the plain question.

| asked | what the model sees | for |
|---|---|---|
| `Plain` | the prompt as it is | a model that reasons unasked, such as one that RL has trained |
| `FewShot` | long worked examples in front | a base or instruct model (2501.12948, section 2.3.1) |
| `Reflect` | a request to reason, reflect and verify | an instruct model (the same section) |

So three sources of cold-start data differ in what is asked and not in what is written. Departure
from the paper: no person rewrites the answers; `cleaning` does what a rule can.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data.chat import Prompt
from data.rows import DataError, Source, message

RULE = "\n\n---\n\n"
# Where a base model, which knows no end of turn, goes on from worked examples to the next question
# by itself.
ENDS = ("\n---", "\nUser:")
REFLECTION = (
    "Reason step by step before you answer. Check every step as you write it; where one may be "
    "wrong, say so, go back and mend it. When you have a result, verify it in another way before "
    "you trust it. Write the reasoning inside <think> </think> and the final answer alone inside "
    "<answer> </answer>."
)


@dataclass(frozen=True, kw_only=True)
class Plain:
    """The prompt as it is."""

    def ask(self, prompt: Prompt) -> Prompt:
        return prompt


@dataclass(frozen=True, kw_only=True)
class Reflect:
    """A request for reasoning with reflection and verification, before the question."""

    instruction: str = REFLECTION
    """Added to a chat's system prompt, or put in front of a plain text."""

    def ask(self, prompt: Prompt) -> Prompt:
        if isinstance(prompt, str):
            return f"{self.instruction}\n\n{prompt}"
        system, rest = _parted(prompt)
        return [message("system", "\n\n".join([*system, self.instruction])), *rest]


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Worked examples in front of the question, the same for every question but for itself."""

    examples: Source
    """Rows with a worked completion, the longer the better; of the same style as the prompts."""
    count: int = 2
    """Examples in front of a question."""
    seed: int = 0
    """Which ones."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DataError(f"few-shot prompting: count={self.count} must be at least 1")

    def ask(self, prompt: Prompt) -> Prompt:
        """Raises DataError where the examples are too few, or of another style than the prompt."""
        if isinstance(prompt, str) != isinstance(self._drawn[0][0], str):
            raise DataError(
                f"few-shot prompting: the prompts and the examples ({self.examples.name}) must "
                "both be chats or both be text: give them the same style="
            )
        # One more was drawn than is needed: a question is no example of itself.
        shown = [pair for pair in self._drawn if _question(pair[0]) != _question(prompt)]
        shown = shown[: self.count]
        if isinstance(prompt, str):
            return "".join(f"{asked}{answer}{RULE}" for asked, answer in shown) + prompt
        system, rest = _parted(prompt)
        turns = [turn for asked, answer in shown for turn in (*_parted(asked)[1], *answer)]
        return [*(message("system", text) for text in system), *turns, *rest]

    @cached_property
    def _drawn(self) -> list[tuple[Any, Any]]:
        """(prompt, completion) of the examples and one in reserve, in a seeded order."""
        pairs = [pair for row in self.examples.rows() if (pair := _worked(row)) is not None]
        if len(pairs) <= self.count:
            raise DataError(
                f"few-shot prompting: {self.count + 1} worked examples are needed, one in reserve, "
                f"and {self.examples.name} has {len(pairs)} rows with a completion"
            )
        return random.Random(f"few-shot {self.seed}").sample(pairs, self.count + 1)


def ended(text: str) -> str:
    """A plain text's answer after `FewShot`, up to where the model went on to its own question."""
    return text[: min((at for end in ENDS if (at := text.find(end)) >= 0), default=len(text))]


def _worked(row: dict[str, Any]) -> tuple[Any, Any] | None:
    if row.get("completion"):
        return row["prompt"], row["completion"]
    if row.get("messages"):
        return row["messages"][:-1], row["messages"][-1:]
    return None


def _question(prompt: Prompt) -> str:
    return (prompt if isinstance(prompt, str) else prompt[-1]["content"]).strip()


def _parted(prompt: Any) -> tuple[list[str], list[Any]]:
    """The system prompt's text, if any, and the turns."""
    system = [turn["content"] for turn in prompt if turn["role"] == "system"]
    return system, [turn for turn in prompt if turn["role"] != "system"]
