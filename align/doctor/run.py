"""All checks, and how what they found is shown."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module

from rich.console import Console
from rich.table import Table
from rich.text import Text

from align.doctor.asked import Asked
from align.doctor.looking import Check, look
from align.terminal.findings import Finding, Findings

# Topic -> module. Imported one by one: what a module needs may be what is missing.
MODULES = {
    "python": "versions",
    "project": "project",
    "versions": "versions",
    "packages": "packages",
    "torch": "devices",
    "memory": "memory",
    "limits": "limits",
    "threads": "threads",
    "disk": "disk",
    "ports": "ports",
    "hub": "hub",
    "launch": "launching",
    "text": "text",
    "clock": "clock",
}
SHOWN = {"error": ("error", "bold red"), "warning": ("warning", "yellow"), "note": ("ok", "green")}


def run(asked: Asked) -> int:
    """Look, print, and return the exit code: 1 where there is an error, else 0."""
    began = time.monotonic()
    chosen = asked.only or (*MODULES, *(("recipe",) if asked.recipe else ()))
    found = look({name: _check(name) for name in chosen}, asked)
    if asked.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        show(found, time.monotonic() - began)
    return 1 if found.errors else 0


def _check(topic: str) -> Check:
    """The check of that topic, whose module is imported when it is called, inside its guard."""

    def check(asked: Asked, found: Findings) -> None:
        if topic == "recipe":
            import_module("align.doctor.needs").check(asked, found)
        else:
            getattr(import_module(f"align.doctor.{MODULES[topic]}"), f"check_{topic}")(asked, found)

    check.__name__ = f"check_{topic}"
    return check


def show(found: Findings, seconds: float) -> None:
    """A table of everything, then the cures on lines of their own, to be copied."""
    # Not align.terminal.progress's console, which is silent where RANK is left in the shell.
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for each in found.found:
        name, style = SHOWN[each.level]
        table.add_row(Text(name, style=style), Text(each.check), Text(each.said))
    console.print(table)
    wrong = [each for each in found.found if each.level != "note"]
    for each in sorted(wrong, key=lambda each: each.level):
        _cure(each, console)
    warnings = len(wrong) - len(found.errors)
    style = "bold red" if found.errors else "green"
    summary = f"\n{len(found.errors)} errors, {warnings} warnings, {seconds:.1f} s"
    console.print(summary, style=style)
    sys.stdout.flush()


def _cure(each: Finding, console: Console) -> None:
    name, style = SHOWN[each.level]
    head = Text(f"\n{name}: {each.check}: ", style=style).append(each.said, style="default")
    console.print(head, soft_wrap=True)
    console.print(f"    {each.cure}", markup=False, soft_wrap=True)
