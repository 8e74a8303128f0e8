"""Runs the checks side by side, each guarded: one that fails or hangs is a finding of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from align.doctor.asked import SETUP, Asked
from align.terminal.findings import Findings

Check = Callable[[Asked, Findings], None]
GRACE = 3.0  # seconds over the limit of what a check itself waits for


def look(checks: Mapping[str, Check], asked: Asked) -> Findings:
    """What all checks found, in their order. Takes at most `asked.seconds` and a little more."""
    kept = {name: Findings() for name in checks}
    # Daemons: a call that hangs in the kernel must not keep the doctor from ending.
    threads = {
        name: threading.Thread(target=_guarded, args=(check, asked, kept[name]), daemon=True)
        for name, check in checks.items()
    }
    for thread in threads.values():
        thread.start()
    until = time.monotonic() + asked.seconds + GRACE
    found = Findings()
    for name, thread in threads.items():
        thread.join(max(0.0, until - time.monotonic()))
        # A copy: one that hangs may write on after its time.
        found.found += tuple(kept[name].found)
        if thread.is_alive():
            found.warning(
                name,
                f"no answer within {asked.seconds + GRACE:.0f} s",
                f"once more with more time: --only {name} --seconds 60",
            )
    return found


def _guarded(check: Check, asked: Asked, found: Findings) -> None:
    name = check.__name__.removeprefix("check_")
    try:
        check(asked, found)
    except ImportError as error:
        found.error(name, f"it cannot be looked at: {_said(error)}", SETUP)
    except Exception as error:  # whatever is broken here, the other checks go on
        found.warning(name, f"it cannot be looked at: {_said(error)}", f"try --only {name}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
