"""Rewards made from plain functions: a TRL reward function as it is, or a per-sample function
under hard limits.

A batch function runs in this process, as TRL would run it. A per-sample function runs in a worker
of `rewards.pool`, so it may hang, exit, fork, print or eat memory: only its own sample suffers.
"""

import asyncio
import inspect
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rewards import pool
from rewards.core import LARGEST, Reward, Score, is_finite, tally, text_of


def from_trl(
    fn: Callable[..., Any],
    *,
    seconds: float | None = None,
    memory_mb: int = 1024,
    patience: float = 60.0,
) -> Reward:
    """A Reward from a TRL reward function `(completions, **columns) -> list[float | None]`, sync
    or async.

    With `seconds` it is called once per sample, with lists of one entry, in a killable worker with
    those limits; without, in this process. patience: seconds after which a stage gives such a call
    up, for the first completion (see `containment`). Raises TypeError for something not callable.
    """
    if isinstance(fn, Reward):
        return fn
    if not callable(fn):
        raise TypeError(
            f"a TRL reward is a function (completions, **columns) -> list, not {type(fn).__name__}"
        )
    if seconds is None:
        return BatchFunction(fn=fn, patience=patience)
    return PerSample(fn=_OneByOne(fn), seconds=seconds, memory_mb=memory_mb)


@dataclass(frozen=True, kw_only=True)
class BatchFunction(Reward):
    """A TRL reward function called in this process; its exceptions are its caller's to see."""

    fn: Callable[..., Any]
    patience: float = 60.0  # type: ignore[misc]

    @property
    def name(self) -> str:  # type: ignore[override]
        return _name_of(self.fn)

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The gold answer, where it is a parameter: what the function makes of null is unknown."""
        return ("solution",) if "solution" in _parameters(self.fn) else ()

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        # TRL always passes prompts; a function written for it may require them.
        if "prompts" not in columns and "prompts" in _parameters(self.fn):
            columns["prompts"] = [None] * len(completions)
        # A copy, as it may empty the list.
        values = self.fn(completions=list(completions), **columns)
        if inspect.isawaitable(values):
            values = _await(values)
        values = _listed(values, len(completions), self.name)
        values = [_number(value, self.name) for value in values]
        return [Score(value=value, parts={self.name: value}) for value in values]


class ShapeError(ValueError):
    """A batch function returned something else than a list of one value a completion."""


def _listed(values: Any, count: int, name: str) -> list[Any]:
    """One value a completion. At most one more is read: an endless generator would take all memory.
    Raises ShapeError.
    """
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(values, Iterable):
        raise ShapeError(
            f"the reward function {name!r} must return a list, not {type(values).__name__}"
        )
    values = list(islice(values, count + 1))
    if len(values) != count:
        returned = f"more than {count}" if len(values) > count else f"{len(values)}"
        raise ShapeError(
            f"the reward function {name!r} returned {returned} values for {count} completions; "
            "return one per completion, None where it does not apply"
        )
    return values


@dataclass(frozen=True, kw_only=True)
class PerSample(Reward):
    """`fn(text, **row) -> float | bool | None`, sync or async, each sample in a killable worker.

    fn: gets the completion's text and this sample's entry of every column. seconds, memory_mb:
    hard limits for one sample. A sample that breaks a limit or raises earns 0.0 and says so in its
    outcome. Identical samples are run once a batch. `completion_ids`, `prompts` and other columns
    are handed over only where fn names them (or takes **kwargs).
    """

    fn: Callable[..., Any]
    seconds: float = 5.0
    memory_mb: int = 1024

    @property
    def name(self) -> str:  # type: ignore[override]
        return _name_of(self.fn)

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        self._check_columns(columns)
        columns = _wanted(self.fn, {k: v for k, v in columns.items() if _is_column(v, completions)})
        calls = [
            ((text_of(c),), {k: v[i] for k, v in columns.items()})
            for i, c in enumerate(completions)
        ]
        results = pool.shared(self.memory_mb).run(self.fn, calls, seconds=self.seconds)
        tally(self.name, [result.outcome for result in results])
        scores = []
        for result in results:
            value = 0.0 if result.outcome != "ok" else _number(_told(result.value), self.name)
            scores.append(Score(value=value, parts={self.name: value}, outcome=result.outcome))
        return scores

    def _check_columns(self, columns: Mapping[str, Any]) -> None:
        """Raises ValueError for a parameter that no column fills: every call would fail."""
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        for one in list(_parameters(self.fn).values())[1:]:
            if one.kind in named and one.default is one.empty and one.name not in columns:
                raise ValueError(
                    f"the function {self.name!r} has a parameter {one.name!r}, which is no column; "
                    f"columns given: {', '.join(sorted(columns)) or 'none'}"
                )


class _OneByOne:
    """A batch function called with lists of one entry, in the shape `PerSample` calls."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.__name__ = _name_of(fn)

    def __call__(self, text: str, **row: Any) -> Any:
        values = self.fn(completions=[text], **{k: [v] for k, v in row.items()})
        return self._later(values) if inspect.isawaitable(values) else self._only(values)

    async def _later(self, values: Any) -> Any:
        return self._only(await values)

    def _only(self, values: Any) -> Any:
        try:
            return _listed(values, 1, self.__name__)[0]
        except ShapeError as error:  # no fault of this sample: for the parent to raise
            return {_WRONG: str(error)}


_WRONG = "wrong"  # the key of a worker's message, which is plain JSON


def _told(value: Any) -> Any:
    """What a worker has answered. Raises ShapeError where that is what it told."""
    if isinstance(value, dict) and _WRONG in value:
        raise ShapeError(value[_WRONG])
    return value


def _name_of(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", None) or type(fn).__name__


def _number(value: Any, name: str) -> float | None:
    """A number of Python, numpy or a tensor of one, as a float. Raises TypeError and ValueError."""
    if value is None:
        return None
    shape = tuple(getattr(value, "shape", ()))
    if shape or isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        of = f" of shape {shape}" if shape else ""
        raise TypeError(
            f"the function {name!r} must return a number or None, not {type(value).__name__}{of}"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not is_finite(number):
        raise ValueError(
            f"the function {name!r} returned {number:g}; return a finite number (below "
            f"{LARGEST:.1g}, what training computes with), or None where it does not apply"
        )
    return number


def _is_column(values: Any, completions: Sequence[Any]) -> bool:
    return isinstance(values, (list, tuple)) and len(values) == len(completions)


def _parameters(fn: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(fn).parameters)


def _wanted(fn: Callable[..., Any], columns: dict[str, Any]) -> dict[str, Any]:
    """The columns fn can take; a function without **kwargs is not troubled with TRL's own."""
    parameters = _parameters(fn)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return columns
    return {k: v for k, v in columns.items() if k in parameters}


def _await(values: Any) -> Any:
    """The result of a coroutine, also where the caller's thread already runs an event loop."""
    result: list[Any] = []
    error: list[BaseException] = []

    async def main() -> None:
        result.append(await values)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as exception:
            error.append(exception)

    # A daemon: a coroutine that never ends must not keep a process that has given it up.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]
