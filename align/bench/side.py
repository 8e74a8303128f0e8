"""One of the two working processes: imports its side once, then forks a process for each case.

A fresh process a case makes the peak memory the case's own, and a fork spares the imports. Nothing
here computes before the fork, so no thread is lost by it.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from typing import Any, Protocol

from align.bench.case import Case
from align.bench.wire import Channel, Ended

IMPORTED = {
    "ours": ("align.bench.our_runs", "align.stages", "datasets"),
    "trl": ("align.bench.peer_trainers", "trl.trainer.grpo_trainer", "datasets"),
}


class Runner(Protocol):
    """A case at one side."""

    def serve(self, channel: Channel) -> None:
        """Answer orders until Ended."""


def main(side: str) -> None:
    for name in IMPORTED[side]:
        importlib.import_module(name)
    channel = Channel.standard()
    gc.freeze()
    while True:
        try:
            order = channel.next()
        except Ended:
            return
        child = os.fork()
        if child == 0:
            _case(side, order, channel)
        _, status = os.waitpid(child, 0)
        channel.answer(closed=os.waitstatus_to_exitcode(status))


def _case(side: str, order: dict[str, Any], channel: Channel) -> None:
    """In the child: never returns, and runs nothing that the parent meant for its own end."""
    code = 1
    try:
        if order["do"] == "about":  # in a child too: looking for a device starts CUDA
            channel.answer(**_about())
        elif order["do"] == "distance":
            from align.bench.weights import distance

            channel.answer(distance=distance(order["ours"], order["theirs"]))
        else:
            _runner(side, Case.of(order["case"])).serve(channel)
        code = 0
    except Ended:
        code = 0
    except BaseException as error:  # whatever it is, the asking process must hear of it
        traceback.print_exc()
        channel.answer(error=f"{type(error).__name__}: {str(error)[:600]}")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _runner(side: str, case: Case) -> Runner:
    import torch

    torch.set_num_threads(case.threads)
    if case.kind == "scoring":
        from align.bench import scoring

        return scoring.runner(case, side)
    if side == "ours":
        from align.bench import our_runs

        return our_runs.runner(case)
    from align.bench import peer_trainers

    return peer_trainers.runner(case)


def _about() -> dict[str, str]:
    import torch
    import transformers
    import trl

    found = {"torch": torch.__version__, "transformers": transformers.__version__}
    device = {"cuda": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return found | {"trl": trl.__version__} | device


if __name__ == "__main__":
    main(sys.argv[1])
