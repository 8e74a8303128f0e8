"""Seconds from launch to the end of the first step, of a script of its own on each side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from align.bench.case import Case
from align.bench.wire import environment

LIMIT = 1800.0  # seconds
POLL = 0.05


class LaunchError(RuntimeError):
    """A script that came to no first step."""


def launched(case: Case, side: str, *, log: Path) -> dict[str, Any]:
    """Wall seconds until the first row of metrics, and of it those that the step itself took.

    Raises LaunchError where the script ends without one, or takes half an hour.
    """
    out = Path(case.scratch) / f"start-{side}"
    file = out / ("grpo/metrics.jsonl" if side == "ours" else "metrics.jsonl")
    file.unlink(missing_ok=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        _command(case, side, out),
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        env=environment(threads=case.threads, device=case.device),
        start_new_session=True,
    )
    try:
        while not (file.is_file() and file.read_text().endswith("\n")):
            if process.poll() is not None or time.perf_counter() - began > LIMIT:
                raise LaunchError(f"{side}: no first step; see {log}")
            time.sleep(POLL)
        seconds = time.perf_counter() - began
        row = json.loads(file.read_text().splitlines()[0])
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return {"seconds": seconds, "step": row["seconds/total"]}


def _command(case: Case, side: str, out: Path) -> list[str]:
    if side == "trl":
        return [sys.executable, "-m", "align.bench.start", json.dumps(case.plain()), str(out)]
    script = Path(__file__).resolve().parents[2] / "scripts" / "grpo.py"
    flags = {
        "recipe": "smollm2",
        "model": case.model,
        "out": out,
        "data": case.data,
        "steps": 1,
        "prompts": case.prompts,
        "samples": case.group,
        "sampling.max-tokens": case.max_tokens,
        "engine.kind": case.engine,
        "kl-every": 0,
        # So that every completion is computed, whatever it earns: TRL computes them all.
        "entropy": 1e-9,
        "compute.precision": case.precision,
        "compute.threads": case.threads,
        "compute.token-budget": case.token_budget,
        "checkpoints.every": 0,
    }
    given = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return [sys.executable, str(script), *given]


def peer(case: Case, out: Path) -> None:
    """What a user's script around GRPOTrainer does: one step, and its figures in a file."""
    import torch

    from align.bench.peer_trainers import GrpoSteps

    torch.set_num_threads(case.threads)
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    trainer = GrpoSteps(replace(case, scratch=str(out))).plain_trainer(max_steps=1)
    ready = time.perf_counter()
    trainer.train()
    row = {"seconds/total": time.perf_counter() - ready, "seconds/load": ready - began}
    (out / "metrics.jsonl").write_text(json.dumps(row) + "\n")


if __name__ == "__main__":
    peer(Case.of(json.loads(sys.argv[1])), Path(sys.argv[2]))
