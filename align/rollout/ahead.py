"""Sampling in a thread, while the trainer works on the rollout before.

Nothing here knows of weights: who begins a rollout has synced the ones that it is to be drawn with,
and syncs no others before it has taken it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from align.rollout.engine import Engine, EngineError, Request, Sample


class Ahead:
    """One rollout at a time: `begin`, then `take`, in the main thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._thread: threading.Thread | None = None
        self._answers: list[list[Sample]] | None = None
        self._error: Exception | None = None

    def begin(self, requests: Sequence[Request]) -> None:
        self._answers = self._error = None

        def work() -> None:
            try:
                self._answers = self.engine.sample(requests)
            except Exception as error:  # whatever it is, it belongs to who takes the rollout
                self._error = error

        # A daemon, so that a run which fails for another reason does not wait for it to end.
        self._thread = threading.Thread(target=work, name="sampling ahead", daemon=True)
        self._thread.start()

    def wait(self) -> list[list[Sample]] | None:
        """What was begun, once it is there; None where nothing was, or where it failed."""
        if self._thread is not None:
            self._thread.join()
        return self._answers

    def take(self) -> list[list[Sample]]:
        """What was begun, for good. Raises what sampling it raised."""
        answers = self.wait()
        self._thread = self._answers = None
        if self._error is not None:
            raise self._error
        if answers is None:
            raise EngineError("nothing was sampled ahead")
        return answers

    def close(self) -> None:
        """Once the engine is closed, which gives up what is being sampled."""
        if self._thread is not None:
            self._thread.join()
