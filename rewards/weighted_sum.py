"""Weighted sum: several rewards as one, with every part kept apart."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rewards.core import Outcome, Reward, Score
from rewards.functions import from_trl


@dataclass(frozen=True)
class WeightedSum(Reward):
    """Σ weight × value over the terms; a reward itself, so sums nest and drop into TRL.

    terms: pairs (weight, reward); a plain TRL function may stand for a reward. A part of None
    counts 0; the value is None only where every part is. `correct` comes from the first term that
    judges it, `outcome` from the first that is not "ok". Parts go by the terms' names, a second
    term of one name as "name_2". Raises ValueError without terms and for a weight that is not
    finite, TypeError for a term that is not such a pair.

        >>> WeightedSum(((1.0, Accuracy()), (0.2, LanguageConsistency())))
    """

    name: ClassVar[str] = "weighted_sum"
    terms: tuple[tuple[float, Reward], ...]

    def __init__(self, terms: Sequence[tuple[float, Reward | Callable[..., Any]]]) -> None:
        if not terms:
            raise ValueError(
                "a weighted sum needs terms, for example ((1.0, Accuracy()), (0.2, Format()))"
            )
        object.__setattr__(self, "terms", tuple(_term(term) for term in terms))

    @property
    def inner(self) -> tuple[Reward, ...]:
        return tuple(reward for _, reward in self.terms)

    def with_inner(self, inner: Sequence[Reward | Callable[..., Any]]) -> "WeightedSum":
        weights = [weight for weight, _ in self.terms]
        return WeightedSum(list(zip(weights, inner, strict=True)))

    def part_names(self) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for reward in self.inner:
            names.update((_free(name, names), None) for name in reward.part_names())
        return tuple(names)

    def needed(self, row: Mapping[str, Any]) -> frozenset[str]:
        return frozenset().union(*(reward.needed(row) for reward in self.inner))

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        # Lists of its own for each term, which may sort or empty them.
        rows = [
            reward.score(list(completions), **{name: _copied(of) for name, of in columns.items()})
            for _, reward in self.terms
        ]
        return [self._combine(scores) for scores in zip(*rows, strict=True)]

    def _combine(self, scores: tuple[Score, ...]) -> Score:
        parts: dict[str, float | None] = {}
        for (_, reward), score in zip(self.terms, scores, strict=True):
            for name, value in (score.parts or {reward.name: score.value}).items():
                parts[_free(name, parts)] = value
        weighted = [
            weight * score.value
            for (weight, _), score in zip(self.terms, scores, strict=True)
            if score.value is not None
        ]
        outcome: Outcome = next((s.outcome for s in scores if s.outcome != "ok"), "ok")
        return Score(
            value=sum(weighted) if weighted else None,
            correct=next((s.correct for s in scores if s.correct is not None), None),
            parts=parts,
            outcome=outcome,
        )


def _term(term: Any) -> tuple[float, Reward]:
    try:
        weight, reward = term
        weight = float(weight)
    except (TypeError, ValueError):
        raise TypeError(
            f"a term is a pair (weight, reward) like (1.0, Accuracy()), not {term!r}"
        ) from None
    if not math.isfinite(weight):
        raise ValueError(f"the weight {weight} of {reward!r} must be a finite number")
    if isinstance(reward, Reward):
        return weight, reward
    if callable(reward):
        return weight, from_trl(reward)
    raise TypeError(f"the term {term!r} holds no reward: rewards.get(name) makes one from a name")


def _copied(column: Any) -> Any:
    return list(column) if type(column) is list else column


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """`name`, or `name_2`, `name_3`, … where it is taken."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate
