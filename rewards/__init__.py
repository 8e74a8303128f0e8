"""Rule-based rewards for training language models, usable from any trainer.

A reward is called as `reward(completions, **columns) -> list[float | None]`, TRL's protocol, and
keeps more apart through `reward.score(...)`. Importing this package loads neither torch nor sympy:
both the symbolic comparison of answers and any function of a user's run in separate processes that
can be killed (`rewards.pool`).

    >>> import rewards
    >>> rewards.get("accuracy")(["<answer>18</answer>", "#### 17"], solution=["18", "18"])
    [1.0, 0.0]
"""

from rewards.accuracy import Accuracy
from rewards.containment import ContainedError, Interrupted, Ordered, contained
from rewards.core import Outcome, Reward, Score
from rewards.cosine import Cosine
from rewards.format import Format
from rewards.functions import PerSample, from_trl
from rewards.language_consistency import LanguageConsistency
from rewards.raised import raised
from rewards.reasoning_steps import ReasoningSteps
from rewards.registry import get, names
from rewards.repetition import Repetition
from rewards.soft_overlong import SoftOverlong
from rewards.weighted_sum import WeightedSum
from rewards.where import Where

__all__ = [
    "Accuracy",
    "ContainedError",
    "Cosine",
    "Format",
    "Interrupted",
    "LanguageConsistency",
    "Ordered",
    "Outcome",
    "PerSample",
    "ReasoningSteps",
    "Repetition",
    "Reward",
    "Score",
    "SoftOverlong",
    "WeightedSum",
    "Where",
    "contained",
    "from_trl",
    "get",
    "names",
    "raised",
]
