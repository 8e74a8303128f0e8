"""The next rollout, sampled in a thread while this one trains: `--ahead 1`.

It is drawn with the weights of one update before those that will learn from it, by the seeds that
it would have in any case. What has been drawn goes into the checkpoint: a resumed run could not
draw it again, as those weights are gone. Nothing here knows of weights: who begins a rollout has
synced the ones that it is to be drawn with, and syncs no others before it has been drawn.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from align.rollout import EngineError, Sample
from align.stages.context import Context
from align.stages.rolled import Rolled, Sampler

Drawn = dict[int, list[Sample]]


class Ahead:
    """At most one rollout, of one step, of this process's places; called in the main thread."""

    def __init__(self, sampler: Sampler, context: Context) -> None:
        self.sampler, self.context = sampler, context
        self.step = 0
        self.places: Sequence[int] = ()
        self.taken = False
        self.restored: Drawn | None = None  # of all processes' places
        self._thread: threading.Thread | None = None
        self._answers: list[list[Sample]] | None = None
        self._error: Exception | None = None

    def begin(self, step: int, places: Sequence[int]) -> None:
        """Have the engine sample these places with the weights that it has now."""
        self.step, self.places, self.taken, self.restored = step, places, False, None
        self._answers = self._error = None
        requests = self.sampler.requests(step, places)

        def work() -> None:
            try:
                self._answers = self.sampler.engine.sample(requests)
            except Exception as error:  # whatever it is, it belongs to who takes the rollout
                self._error = error

        # A daemon, so that a run which fails for another reason does not wait for it to end.
        self._thread = threading.Thread(target=work, name="sampling ahead", daemon=True)
        self._thread.start()

    def has(self, step: int) -> bool:
        return self.step == step and not self.taken

    def drawn(self) -> list[Rolled]:
        """What was begun, once it is there; empty where it failed."""
        answers = self.wait()
        return [] if answers is None else self.sampler.rolled(self.places, answers)

    def take(self, places: Sequence[int]) -> list[Rolled]:
        """What `has` says is there, once it is. Raises what sampling it raised."""
        self.taken = True
        if self.restored is not None:
            return self.sampler.rolled(places, [self.restored[each] for each in places])
        answers = self.wait()
        if self._error is not None:
            raise self._error
        if answers is None:
            raise EngineError("nothing was sampled ahead")
        return self.sampler.rolled(places, answers)

    def give_back(self, step: int) -> None:
        """The step that took it has come to nothing: `state` has it again."""
        if self.step == step:
            self.taken = False

    def wait(self) -> list[list[Sample]] | None:
        """The engine's answers, once they are there; None where there are none."""
        if self._thread is not None:
            self._thread.join()
        return self._answers

    def state(self) -> dict[str, Any]:
        """Every process's part as plain values, once it is drawn; empty where one has none.

        Of a rollout that failed too: whoever takes it gets the error, and a resumed run samples.
        """
        if self.taken:
            return {}
        drawn = self.restored
        if drawn is None:
            mine = self.wait() if self.step else None
            parts = self.context.gathered(
                [mine and dict(zip(self.places, mine, strict=True))] if self.places else []
            )
            if not parts or None in parts:
                return {}
            drawn = {place: samples for part in parts for place, samples in part.items()}
        rows = [
            [place, [[one.ids, one.logprobs, one.truncated] for one in samples]]
            for place, samples in sorted(drawn.items())
        ]
        return {"step": self.step, "drawn": rows}

    def load_state(self, state: dict[str, Any]) -> None:
        self.step = state.get("step", 0)
        self.restored = {
            place: [
                Sample(ids=ids, logprobs=logprobs, truncated=truncated)
                for ids, logprobs, truncated in samples
            ]
            for place, samples in state.get("drawn", [])
        } or None

    def close(self) -> None:
        """Once the engine is closed, which gives up what is being sampled."""
        if self._thread is not None:
            self._thread.join()
