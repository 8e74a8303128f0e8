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
    """What `work` returns on the first process, on every one; an error there is raised on every
    one, so that none waits for a process that has left. An EngineError is `shared`; of another the
    others learn by an EngineError.
    """
    if not _many():
        return work()
    result: T | None = None
    failure: Exception | None = None
    if is_first():
        try:
            result = work()
        except Exception as error:
            failure = error
    shared = isinstance(failure, EngineError)
    said = None if failure is None else str(failure) if shared else f"rank 0: {failure!r}"
    answer: list[Any] = [result, said, shared]
    distributed.broadcast_object_list(answer, src=0)
    if failure is not None and not shared:
        raise failure
    if answer[1] is not None:
        raise EngineError(answer[1], shared=answer[2]) from failure
    return answer[0]


def _many() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
