"""What every sampler offers, and the seeds it samples with.

A completion is drawn with a seed made of (run seed, step, prompt, sample) and nothing else, so a
resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt and a seed for each completion wanted of it."""

    prompt: Sequence[int]
    seeds: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One completion: its tokens, end token included, and the sampler's own log-prob of each."""

    ids: list[int]
    logprobs: list[float]
    truncated: bool
    """Cut at the token limit, without an end token."""


class EngineError(RuntimeError):
    """A sampler that cannot be started or used; the message says what to type instead.

    shared: every process of the run raises it at this place, so that they can go on together.
    """

    def __init__(self, message: str = "", *, shared: bool = False) -> None:
        super().__init__(message)
        self.shared = shared


class Engine(Protocol):
    """A sampler. `sample` keeps the order of the requests and of their seeds."""

    def sample(self, requests: Sequence[Request]) -> list[list[Sample]]: ...

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take over the trainer's weights: (name, tensor), tied ones under each of their names."""

    def close(self) -> None:
        """Stop sampling for good."""


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from any parts, the same on every machine and in every process."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
