"""Rows that a source leaves out: counted by reason and said once, never silently.

Public sets hold some rows of no use. A mapper raises `Unusable` with the reason; what a row lacks
otherwise is the caller's to name.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


class Unusable(ValueError):
    """A row of a public set that serves nothing; the message is the reason, in a few words."""


@dataclass
class LeftOut:
    """Counts of one reading. first: where and which row the first was, None as long as none is."""

    reasons: dict[str, int] = field(default_factory=dict)
    first: str | None = None

    def add(self, reason: str, where: str) -> None:
        """One row more, for this reason. where: such as `the 7th row`."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.first = self.first or where

    def __str__(self) -> str:
        return "; ".join(f"{count} {reason}" for reason, count in self.reasons.items())

    def warn(self, where: str) -> None:
        """One line in the log, where any was left out."""
        if self.first is not None:
            count = sum(self.reasons.values())
            log.warning("%s: left out %d rows (the first: %s): %s", where, count, self.first, self)
