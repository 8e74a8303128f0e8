"""Running out of memory: how to tell, and what to say where nothing can be cut any more."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from align.training.allocator import trim

# What is said where the exception's type does not tell: by the CPU's allocator (POSIX, Windows),
# by C++, and by what asks CUDA for memory past the caching allocator.
SAID = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
LESS = (
    "Less memory is needed with --compute.gradient-checkpointing, with --compute.precision bf16, "
    "and for shorter completions: --max-tokens, or --sampling.max-tokens where they are sampled"
)


class TooLargeError(RuntimeError):
    """What does not fit in memory and cannot be cut; the message says what to change."""


def is_shortage(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, the device's or the host's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in SAID)


@contextmanager
def named(*, token_budget: int) -> Iterator[None]:
    """Inside, running out of memory raises TooLargeError: for what `align.training.backward` does
    not cut, such as passes without a gradient, whose packs have `token_budget` tokens.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        said = str(error).partition("\n")[0] or type(error).__name__
        raise TooLargeError(
            f"memory ran out ({said}): --resume with --compute.token-budget "
            f"{max(1, token_budget // 2)}, or less. {LESS}"
        ) from error


def give_back(device: torch.device) -> None:
    """Free what nothing refers to any more, so that smaller pieces find room in one piece."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        trim()
