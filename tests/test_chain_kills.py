"""SIGKILL at random moments over a whole R1 chain: the same command each time, the same end.

A moment is a number of things written so far (log rows, sampled prompts, complete stages), so the
moments fall all over the chain however fast the machine is. Half of the kills take the chain's
command alone, whose stage must then end by itself; half take everything at once.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
import runs

SEED = int(os.environ.get("ALIGN_KILL_SEED", "0"))
TRAINED = ("cold", "reason", "general", "helpful", "aligned", "student")
SAMPLED = ("cold-data", "rejection")


def start(out, log):
    script = runs.REPOSITORY / "scripts" / "run.py"
    return subprocess.Popen(
        [sys.executable, script, "--recipe", "tiny-r1", "--out", out],
        cwd=out.parent,
        env=runs.environment(),
        stdout=log,
        stderr=log,
    )


def written(out):
    """How many things the chain has left so far."""
    logs = (*out.glob("*/metrics.jsonl"), *out.glob("*/sampled*.jsonl"))
    lines = sum(file.read_bytes().count(b"\n") for file in logs)
    return lines + len(list(out.glob("*/manifest.json"))) + len(list(out.glob("*/done.json")))


def kill(chain, alone):
    """The command alone, or with all that it started."""
    family = [] if alone else psutil.Process(chain.pid).children(recursive=True)
    for process in (psutil.Process(chain.pid), *family):
        process.send_signal(signal.SIGKILL)
    chain.wait()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("chain") / "run"
    with (out.parent / "log").open("w") as log:
        assert start(out, log).wait() == 0, (out.parent / "log").read_text()
    return out


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [4, pytest.param(12, marks=pytest.mark.long)])
def test_kills_leave_no_trace(wanted, uninterrupted, tmp_path):
    out, draw = tmp_path / "run", random.Random(SEED)
    moments = sorted(draw.randrange(written(uninterrupted)) for _ in range(wanted))
    kills = []
    with (tmp_path / "log").open("w") as log:
        for at, moment in enumerate(moments):
            chain = start(out, log)
            runs.wait_for(
                lambda chain=chain, moment=moment: (
                    chain.poll() is not None or written(out) >= moment
                ),
                seconds=300,
                what=f"{moment} things written",
            )
            # At once, in the middle of a stage, or later, which may be between two.
            time.sleep(draw.choice((0.0, 0.0, draw.uniform(0.0, 2.0))))
            if chain.poll() is None:
                kill(chain, alone=bool(at % 2))
                kills.append(moment)
        assert start(out, log).wait() == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert len(kills) >= wanted - 1, said  # the last may come when there is nothing left to kill
    assert "resume  " in said  # some of them cut a stage that had begun
    assert "Traceback" not in said
    for stage in TRAINED:
        runs.check_equal(out / stage, uninterrupted / stage)
    for stage in SAMPLED:
        done = [json.loads((run / stage / "done.json").read_text()) for run in (out, uninterrupted)]
        assert done[0] == done[1]
        name = f"{stage}/data.jsonl"
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()
        assert runs.logs(out / stage) == runs.logs(uninterrupted / stage)
