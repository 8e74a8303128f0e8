"""Data sets read from a local file or the hub, one short class each over the options of `Table`.

Every class maps through the table of `shapes`, so `path="my.jsonl"` in place of the hub changes
where the rows come from and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from data.table import Table


@dataclass(frozen=True, kw_only=True)
class Local(Table):
    """A local file or several, `path`; their shape is recognised from their columns."""


@dataclass(frozen=True, kw_only=True)
class Hub(Table):
    """Any data set of the hub, `id="owner/name"`, whose columns fit a known shape."""


@dataclass(frozen=True, kw_only=True)
class GSM8K(Table):
    """Grade-school word problems; 7,473 train, 1,319 test. The worked answer is the completion."""

    id: str | None = "openai/gsm8k"
    config: str | None = "main"
    shape: str | None = "question-answer"


@dataclass(frozen=True, kw_only=True)
class NuminaMathTIR(Table):
    """Competition mathematics; 72,441 train, 99 test. Rows without a boxed answer are left out."""

    id: str | None = "AI-MO/NuminaMath-TIR"
    shape: str | None = "numinamath"


@dataclass(frozen=True, kw_only=True)
class BespokeStratos(Table):
    """17k reasoning traces for SFT, their tags written as <think> and <answer>."""

    id: str | None = "bespokelabs/Bespoke-Stratos-17k"
    shape: str | None = "conversations"


@dataclass(frozen=True, kw_only=True)
class MATH500(Table):
    """500 problems of MATH for evaluation. Read only where you name it, never shipped."""

    id: str | None = "HuggingFaceH4/MATH-500"
    shape: str | None = "math"
    split: str = "test"


@dataclass(frozen=True, kw_only=True)
class UltraFeedback(Table):
    """Preference pairs on general instructions; pairs of equal or empty answers are left out."""

    id: str | None = "trl-lib/ultrafeedback_binarized"
    shape: str | None = "preference"


@dataclass(frozen=True, kw_only=True)
class HHRLHF(Table):
    """Preference pairs of whole dialogues, helpful and harmless; the shared part is the prompt.

    Left out are dialogues that are equal, answer nothing or open differently.
    """

    id: str | None = "Anthropic/hh-rlhf"
    shape: str | None = "preference"


@dataclass(frozen=True, kw_only=True)
class RottenTomatoes(Table):
    """Sentences of film reviews by the thousand, positive or negative (Pang and Lee)."""

    id: str | None = "cornell-movie-review-data/rotten_tomatoes"
    shape: str | None = "labelled-text"
    prefix: str | None = "Movie review:"
