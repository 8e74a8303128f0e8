"""Work that one process does for all: its result, or its error, is every process's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed

from align.rollout.engine import EngineError

T = TypeVar("T")


def is_first() -> bool:
    return not _many() or distributed.get_rank() == 0


def on_first(work: Callable[[], T]) -> T:
    """What `work` returns on the first process, on every one; an EngineError there is raised on
    every one, so that none waits for a process that has left.
    """
    if not _many():
        return work()
    answer: list[Any] = [None, ""]
    if is_first():
        try:
            answer[0] = work()
        except EngineError as error:
            answer[1] = str(error)
    distributed.broadcast_object_list(answer, src=0)
    if answer[1]:
        raise EngineError(answer[1])
    return answer[0]


def _many() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
