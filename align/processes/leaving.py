"""The end of a process that somebody else's thread would put off for ever.

Python waits for every thread that is no daemon. One that a reward or a library has left behind,
such as a request without a time limit, would hold a run that is done, and every chain around it;
SIGTERM is by then an order to save a checkpoint, which nobody hears.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 30.0  # seconds in which a thread that is about to end has ended


@contextmanager
def ending_in_time() -> Iterator[None]:
    """After the block the process ends, with the exit code that it would have, whatever threads of
    other people's go on.
    """
    code, exiting = 1, threading.Event()
    try:
        yield
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        raise
    finally:
        # The last to be registered is called first: the executors of concurrent.futures wait for
        # their threads there, before the main thread counts as ended. What atexit calls comes after
        # all threads have ended, and has all the time that it takes.
        threading._register_atexit(exiting.set)  # type: ignore[attr-defined]
        threading.Thread(target=_end, args=(code, exiting), name="ending", daemon=True).start()


def _end(code: int, exiting: threading.Event) -> None:
    exiting.wait()  # from here on Python waits for the others
    time.sleep(PATIENCE)
    left = [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
    if not left:
        return  # others are at work, such as a tracker that sends what it has
    message = (
        f"note: ended without waiting for the thread {', '.join(left)}, which goes on and on: "
    )
    message += "a reward or a library has started it\n"
    sys.stdout.flush()
    os.write(2, message.encode())
    os._exit(code)
