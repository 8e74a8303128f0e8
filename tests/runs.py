"""Runs of a stage's script for the tests: processes forked from one that has imported everything.

A cold start takes seconds, a fork milliseconds, so dozens of runs can be killed and resumed. The
nursery is this file run as a script: it takes one JSON order a line, forks a child that does what
`scripts/grpo.py` does, waits, and answers with the exit code (negative for a signal).
"""

import atexit
import contextlib
import faulthandler
import functools
import importlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# As `accelerate launch`, which imports all its other commands too.
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch")
# What a run imports on its way.
IMPORTED = (
    "align.stages",
    "datasets",
    "torch._dynamo",
    "transformers.generation.utils",
    "transformers.models.llama.modeling_llama",
)
STUCK = 300.0  # seconds after which a run says where it hangs, and ends
TIMES = ("time", "seconds/")


@functools.cache
def environment():
    """What every process here runs under: one thread, no hub, no CUDA, its own cache."""
    cache = tempfile.mkdtemp(prefix="align-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    left_out = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {
        "XDG_CACHE_HOME": cache,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


class Nursery:
    """The parent of forked runs."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.process.stdin.close)

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def run(
        self, kind, args, *, kill_after=None, hurt=None, ranks=1, sharded=False, trial=False, log
    ):
        """Exit codes of a run, one a rank, and the seconds of processor time of the first.

        sharded: under FSDP2 rather than DDP. trial: with the trial before the first step; most
        tests count what a run samples, scores and steps, and it leaves nothing else behind.

        SIGKILL ends it once it has used `kill_after` seconds of processor time: unlike the clock,
        that does not depend on what else the machine does.
        """
        args = [*args, *([] if trial else ["--skip-trial"])]
        order = {"args": [str(arg) for arg in args], "kind": kind, "hurt": hurt, "ranks": ranks}
        return self.ask(**order, log=str(log), kill_after=kill_after, sharded=sharded)


@functools.cache
def nursery():
    return Nursery()


def grpo(out, *more, name="grpo"):
    """Flags of a GRPO run whose steps have minibatches, passes, refills, many checkpoints."""
    flags = "--recipe tiny --model random:recipes/tiny_model --minibatches 2 --iterations 2"
    flags += " --refill 1 --checkpoints.every 2"
    return [*flags.split(), "--name", name, "--out", out, *more]


def finished(stage):
    """The weights' hash of a complete stage."""
    return json.loads((stage / "done.json").read_text())["weights"]


def rows(file):
    """A log's rows without what differs between two equal runs: times."""
    parsed = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if not name.startswith(TIMES)} for row in parsed
    ]


def logs(stage):
    return rows(stage / "metrics.jsonl"), rows(stage / "samples.jsonl")


def check_equal(stage, reference):
    """Same weights, same logs."""
    assert finished(stage) == finished(reference)
    for mine, theirs in zip(logs(stage), logs(reference), strict=True):
        assert [row["step"] for row in mine] == [row["step"] for row in theirs]
        assert mine == theirs
    warned = [folder / "watch.jsonl" for folder in (stage, reference)]
    if warned[1].exists():  # not where a stage has no training loop
        assert warned[0].read_text() == warned[1].read_text()


def checkpoints(stage):
    return sorted(path.name for path in (stage / "checkpoints").glob("step-*"))


def timed(command, folder, **more):
    """(exit code, stdout, stderr, seconds of processor time, children's included).

    Processor time, not the clock's: the limits of those that ask are of an idle machine.
    """
    out, err = folder / "out", folder / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=environment() | more,
            stdout=stdout,
            stderr=stderr,
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    return child.returncode, out.read_text(), err.read_text(), seconds


def healthy(url):
    """Whether a server at that address says that it is up."""
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(condition, seconds=120.0, *, what):
    """The condition's value, once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
    return value


# What follows runs in the nursery.


def serve():
    """Answer orders until standard input ends."""
    import torch

    torch.set_num_threads(1)
    for module in IMPORTED:
        importlib.import_module(module)
    import rewards

    # A run starts no judge of its own for answers that were judged before: the fork brings the
    # memory of them along.
    judge = rewards.get("accuracy")
    for line in sys.stdin:
        order = json.loads(line)
        if file := order.get("judge"):
            asked = [json.loads(line) for line in Path(file).read_text().splitlines()]
            judge.score([text for text, _ in asked], solution=[gold for _, gold in asked])
            rewards.pool.close_all()
            answer = len(asked)
        else:
            answer = _run(order)
        print(json.dumps(answer), flush=True)


def _run(order):
    port = free_port()
    pids = [_fork(order, rank, port) for rank in range(order["ranks"])]
    codes, used, failed = {}, 0.0, 0.0
    while len(codes) < len(pids):
        used = _used(pids[0]) or used
        for pid in [pid for pid in pids if pid not in codes]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
                failed = failed or (time.monotonic() if codes[pid] else 0.0)
            elif order["kill_after"] and _used(pid) > order["kill_after"]:
                os.kill(pid, signal.SIGKILL)
            elif failed and time.monotonic() - failed > 30:
                os.kill(pid, signal.SIGKILL)  # it may wait for ever for the rank that failed
        time.sleep(0.002)
    return {"codes": [codes[pid] for pid in pids], "seconds": used}


def free_port():
    """A port that nothing listens on, below those that the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port


def _used(pid):
    """Seconds of processor time of a process's main thread, 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _fork(order, rank, port):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # Standard output carries the answers.
        with open(f"{order['log']}.{rank}" if rank else order["log"], "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        faulthandler.dump_traceback_later(STUCK, exit=True)
        if order["ranks"] > 1:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(order["ranks"]),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        if order["sharded"]:
            os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
        _launch(order)
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        import rewards

        rewards.pool.close_all()
        sys.stdout.flush()
        os._exit(code)


def _launch(order):
    from align import cli, config

    if order["hurt"]:
        name, *args = order["hurt"]
        module, _, name = name.rpartition(".")
        getattr(importlib.import_module(module or "hurts"), name)(*args)
    sys.argv = [f"scripts/{order['kind']}.py", *order["args"]]
    stages = [config.Sft, config.RewardModel, config.Dpo, config.Kto, config.Grpo, config.Ppo]
    stages += [config.Sample, config.Distill]
    cli.launch({stage.kind: stage for stage in stages}[order["kind"]], "a test")


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))  # before tests/, where folders are called data and rewards
    with contextlib.suppress(KeyboardInterrupt):
        serve()
