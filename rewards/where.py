"""Where: a reward for some of the prompts only, told by a column of the data set.

In reinforcement learning on mixed prompts each prompt's kind decides which rewards apply
(DeepSeek-R1, 2501.12948, section 2.3.4): accuracy where there is something to be right about, a
reward model's helpfulness where somebody chats.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards import core
from rewards.core import Reward, Score
from rewards.functions import from_trl


@dataclass(frozen=True, kw_only=True)
class Where(Reward):
    """`reward` where the column's value is one of `equals`; elsewhere it does not apply (None).

    reward: called with the rows it applies to alone, never with none; a plain TRL function may
    stand for it. column: of the data set. equals: the values; None among them means null. Its name
    and its parts are the reward's, so a gate changes no figure's name. Raises TypeError for equals
    that are not a tuple or list, ValueError for none.

        >>> WeightedSum(((1.0, Where(reward=Accuracy(), equals=("math",))), (0.1, Format())))
    """

    reward: Reward
    equals: tuple[Any, ...]
    column: str = "kind"

    def __post_init__(self) -> None:
        if not isinstance(self.equals, (tuple, list)):
            raise TypeError(f"equals={self.equals!r} must be a tuple of values: ({self.equals!r},)")
        if not self.equals:
            raise ValueError("equals=() is no row at all; name the values it applies to")
        object.__setattr__(self, "equals", tuple(self.equals))
        object.__setattr__(self, "reward", from_trl(self.reward))

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.reward.name

    @property
    def inner(self) -> tuple[Reward, ...]:
        return (self.reward,)

    def with_inner(self, inner: Sequence[Reward | Callable[..., Any]]) -> "Where":
        (reward,) = inner
        return Where(reward=reward, equals=self.equals, column=self.column)  # type: ignore[arg-type]

    def part_names(self) -> tuple[str, ...]:
        return self.reward.part_names()

    def needed(self, row: Mapping[str, Any]) -> frozenset[str]:
        return self.reward.needed(row) if row.get(self.column) in self.equals else frozenset()

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        count = len(completions)
        values = core.column(self.column, count, columns, reward=f"{self.name} where {self.column}")
        places = [i for i, value in enumerate(values) if value in self.equals]
        scores = [Score(value=None, parts=dict.fromkeys(self.part_names())) for _ in values]
        if places:
            # What is no column, such as TRL's trainer state, goes through as it is.
            chosen = {
                name: [given[i] for i in places]
                if isinstance(given, (list, tuple)) and len(given) == count
                else given
                for name, given in columns.items()
            }
            found = self.reward.score([completions[i] for i in places], **chosen)
            for place, score in zip(places, found, strict=True):
                scores[place] = score
        return scores
