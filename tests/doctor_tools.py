"""What the tests of the doctor share: the script, what it found, and mistakes to make."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import yaml

from align.terminal.findings import Findings

REPOSITORY = Path(__file__).resolve().parent.parent


def doctor(*args, env=None, before=None, script="scripts/doctor.py"):
    """The script in a process of its own, which no run of this test-suite has prepared."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / script), *args],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
        | (env or {}),
        preexec_fn=before,
        cwd=REPOSITORY,
        timeout=400,
    )


def looked(check, *args, **kwargs):
    found = Findings()
    check(*args, found, **kwargs)
    return found


def only(found, level, check, *, said="", cure=""):
    """The one finding of that level and name which says so and ends in that cure."""
    fitting = [e for e in found.found if (e.level, e.check) == (level, check) and said in e.said]
    assert len(fitting) == 1, found.as_json()
    assert cure in fitting[0].cure, fitting[0]
    return fitting[0]


def clean(found):
    assert not [e.line() for e in found.found if e.level != "note"]
    assert found.found


def install(folder, name, version, **files):
    """What pip leaves of a package, without the package."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for file, text in files.items():
        (about / file.replace("_txt", ".txt")).write_text(text)


def tool(folder, text, monkeypatch):
    """A nvidia-smi in front of the PATH."""
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def gpus(*, driver="590.10", count=1, free=80000, capability="9.0"):
    rows = [f"{i}, GPU-{i}, H100, {driver}, 81559, {free}, {capability}" for i in range(count)]
    return "\n".join(f"echo '{row}'" for row in rows)


@contextmanager
def listening():
    """A socket that takes connections and never answers; its port."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def config(folder, **changes):
    values = {"distributed_type": "MULTI_GPU", "num_processes": 2, "mixed_precision": "no"}
    file = folder / "accelerate.yaml"
    file.write_text(yaml.safe_dump(values | {"main_process_ip": "10.0.0.1"} | changes))
    return file
