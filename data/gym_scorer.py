"""reasoning-gym's own scorers, for a worker process: this module imports the package.

The scorers of boards and lists call `eval` on the answer, and on what a data file says. They get
`ast.literal_eval` in its place, and so does every other, for all that a later version may do.
"""

from __future__ import annotations

import ast
import functools
import json
import sys
from collections.abc import Callable
from typing import Any

from reasoning_gym.factory import get_score_answer_fn


def score(text: str, *, task: str, metadata: str, solution: str) -> float:
    """What the task's own scorer gives the answer, 0 to 1. Raises ValueError for an unknown
    task.
    """
    return float(_scorer(task)(text, {"answer": solution, "metadata": json.loads(metadata)}))


@functools.cache
def _scorer(task: str) -> Callable[[str, dict[str, Any]], float]:
    scorer = get_score_answer_fn(task)
    # A module's own names go before the builtins.
    vars(sys.modules[type(scorer.__self__).__module__])["eval"] = ast.literal_eval
    return scorer
