"""Rows of a hub data set, or within seconds an error that says what to type instead.

`datasets.load_dataset` retries for 23 s where there is no network. One request with a short time
limit goes first; where it fails, only the local cache is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from data.rows import DataError, Row

REACH_SECONDS = 5.0
_offline = ContextVar("offline", default=False)


def load(name: str, config: str | None, split: str) -> list[Row]:
    """The rows of one split. Raises DataError naming the data set and the override that reads a
    local file instead.
    """
    import datasets

    problem = "it is not in the local cache" if _offline.get() else _unreachable(name)
    try:
        if problem is None:
            return list(datasets.load_dataset(name, config, split=split))
        with _cache_only():
            return list(datasets.load_dataset(name, config, split=split))
    except (OSError, ValueError, RuntimeError) as error:
        # Offline, `datasets` reports a missing cache; the reason the hub gave says more.
        reason = problem or f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise DataError(
            f"{name} ({split}) cannot be loaded: {reason}. Give a local copy instead: "
            "--data path/to/file.jsonl (or .parquet), or work without a network: --data arithmetic"
        ) from error


@contextmanager
def without_network() -> Iterator[None]:
    """Inside, only the local cache is read."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def _unreachable(name: str) -> str | None:
    """Why the hub does not give the data set, or None where it does."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        HfApi().dataset_info(name, timeout=REACH_SECONDS)
    except HfHubHTTPError as error:
        return f"the hub answers: {str(error).splitlines()[0]}"
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set and it is not in the local cache"
    except Exception as error:
        # The HTTP library's own class, which differs between versions of the hub client.
        return f"the hub cannot be reached ({error}) and it is not in the local cache"
    return None


@contextmanager
def _cache_only() -> Iterator[None]:
    """`datasets` reads this flag at every call and has no argument for it."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
