"""What a check found: how bad, what, and the command that mends it.

Shared by the doctor, which looks at a machine, and the preflight, which looks at a run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from align.terminal.progress import console

Level = Literal["error", "warning", "note"]


class PreflightError(Exception):
    """What was found would make the run fail or teach nothing; says all of it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """check: what was looked at, in a word or two. said: what was seen, and where. cure: what to
    type or to change.
    """

    level: Level
    check: str
    said: str
    cure: str = ""

    def line(self) -> str:
        return f"{self.check}: {self.said}" + (f"; {self.cure}" if self.cure else "")


class Findings:
    """In the order found."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def error(self, check: str, said: str, cure: str) -> None:
        """The run cannot work: it is not begun."""
        self.found.append(Finding(level="error", check=check, said=said, cure=cure))

    def warning(self, check: str, said: str, cure: str) -> None:
        """It may be meant; the run goes on."""
        self.found.append(Finding(level="warning", check=check, said=said, cure=cure))

    def report(self, check: str, said: str, cure: str, *, certain: bool) -> None:
        """An error where it is certain that it cannot be meant, else a warning."""
        (self.error if certain else self.warning)(check, said, cure)

    def note(self, check: str, said: str) -> None:
        """A figure worth seeing."""
        self.found.append(Finding(level="note", check=check, said=said))

    @property
    def errors(self) -> list[Finding]:
        return [each for each in self.found if each.level == "error"]

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(each) for each in self.found]

    def settle(self) -> None:
        """Print what is no error; raise PreflightError with what is."""
        for each in self.found:
            if each.level != "error":
                console.print(f"{each.level}: {each.line()}", markup=False)
        if self.errors:
            raise PreflightError("\n".join(each.line() for each in self.errors))
