"""SIGKILL in the middle of sampling with a real vLLM: no prompt twice, none left out.

Its draws depend on what else is in a batch, so the texts are not held to an uninterrupted run's.
"""

import json
import os
import signal
import subprocess
import sys

import pytest
import runs
import tiny
from transformers import AutoConfig, AutoModelForCausalLM

PROMPTS, SAMPLES, BATCH = 16, 4, 4


@pytest.mark.vllm
@pytest.mark.slow
def test_killed_and_resumed_every_prompt_is_there_once(tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed (make setup)")
    # Heads of 16, as the tiny model has, are not among those that vLLM computes on a CPU.
    config = AutoConfig.from_pretrained(tiny.CHAT_FOLDER, head_dim=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tiny.chat_tokenizer().save_pretrained(tmp_path / "model")
    command = [sys.executable, runs.REPOSITORY / "scripts" / "sample.py", "--recipe", "tiny-r1"]
    command += ["--stage", "rejection", "--model", "model", "--out", "run", "--resume"]
    command += ["--engine.kind", "vllm", "--samples", SAMPLES, "--limit", PROMPTS]
    command = [str(part) for part in [*command, "--prompts", BATCH]]
    sampled = tmp_path / "run" / "rejection" / "sampled.jsonl"
    with (tmp_path / "log").open("w") as log:
        options = {"cwd": tmp_path, "env": runs.environment(), "stdout": log, "stderr": log}
        first = subprocess.Popen(command, **options)
        runs.wait_for(
            lambda: first.poll() is not None or (sampled.exists() and sampled.stat().st_size),
            seconds=300,
            what="the first batch",
        )
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
        before = sampled.read_bytes().splitlines(keepends=True)
        assert BATCH <= len(before) < PROMPTS
        with sampled.open("ab") as file:
            file.write(before[0][:20])  # as a kill in the middle of a line leaves it
        assert subprocess.run(command, **options).returncode == 0, (tmp_path / "log").read_text()
    after = sampled.read_bytes().splitlines(keepends=True)
    assert after[:BATCH] == before[:BATCH]  # what was whole was not drawn again
    lines = [json.loads(line) for line in after]
    assert [line["row"] for line in lines] == list(range(PROMPTS))
    assert {len(line["samples"]) for line in lines} == {SAMPLES}
    seeds = [sample["seed"] for line in lines for sample in line["samples"]]
    assert len(set(seeds)) == PROMPTS * SAMPLES
    done = json.loads((sampled.parent / "done.json").read_text())
    rows = [json.loads(line) for line in (sampled.parent / "data.jsonl").open()]
    kept = [row["provenance"] for row in rows if "sample" in row["provenance"]]
    assert len(rows) == done["rows"] and len(kept) == done["samples"]["kept"]
    assert len({(origin["row"], origin["sample"]) for origin in kept}) == len(kept)
