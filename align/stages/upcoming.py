"""The next rollout, sampled while this one trains: `--ahead 1`.

It is drawn with the weights of one update before those that will learn from it, by the seeds that
it would have in any case. What has been drawn goes into the checkpoint: a resumed run could not
draw it again, as those weights are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.rollout import Sample
from align.rollout.ahead import Ahead
from align.stages.context import Context
from align.stages.rolled import Rolled, Sampler

Drawn = dict[int, list[Sample]]


class Upcoming:
    """At most one rollout, of one step, of this process's places."""

    def __init__(self, sampler: Sampler, context: Context) -> None:
        self.sampler, self.context = sampler, context
        self.ahead = Ahead(sampler.engine)
        self.step = 0
        self.places: Sequence[int] = ()
        self.restored: Drawn | None = None  # of all processes' places

    def begin(self, step: int, places: Sequence[int]) -> None:
        """Have the engine sample these places with the weights that it has now."""
        self.step, self.places, self.restored = step, places, None
        self.ahead.begin(self.sampler.requests(step, places))

    def has(self, step: int) -> bool:
        return self.step == step

    def take(self, places: Sequence[int]) -> list[Rolled]:
        """What `has` says is there, once it is. Raises what sampling it raised."""
        restored, self.restored = self.restored, None
        self.step = 0
        answers = self.ahead.take() if restored is None else [restored[each] for each in places]
        return self.sampler.rolled(places, answers)

    def state(self) -> dict[str, Any]:
        """Every process's part as plain values, once it is drawn; empty where one has none.

        Of a rollout that failed too: whoever takes it gets the error, and a resumed run samples.
        """
        drawn = self.restored
        if drawn is None:
            mine = self.ahead.wait() if self.step else None
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
        """Once the engine is closed."""
        self.ahead.close()
