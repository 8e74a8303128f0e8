"""What a test of a server sets up inside a run's process before it starts; see `hurts`."""

import os
import signal
from pathlib import Path

from align.stages.ahead import Ahead
from align.stages.rolled import Roller


def tell_pid(file):
    """No harm: write down which process the run is."""
    Path(file).write_text(str(os.getpid()))


def killed_while_it_learns(step):
    """SIGKILL once that step is scored, with the next one's sampling begun."""
    _at_score(step, signal.SIGKILL)


def term_while_it_learns(step):
    """SIGTERM at that place."""
    _at_score(step, signal.SIGTERM)


def _at_score(step, number):
    original = Roller.score

    def score(self, at, groups):
        original(self, at, groups)
        if at == step:
            os.kill(os.getpid(), number)

    Roller.score = score


def all_learn():
    """No harm: rewards that leave no group dead, so that every step moves the weights."""
    original = Roller.score

    def score(self, step, groups):
        original(self, step, groups)
        from dataclasses import replace

        for group in groups:
            group.scores = [
                replace(kept, value=float(i % 2), correct=float(i % 2))
                for i, kept in enumerate(group.scores)
            ]

    Roller.score = score


def one_after_the_other():
    """No harm: the next rollout is sampled before this one trains, not beside it."""
    original = Ahead.begin

    def begin(self, step, places):
        original(self, step, places)
        self.wait()

    Ahead.begin = begin
