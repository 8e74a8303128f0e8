"""The recipe `qwen0.5b` runs for real: vLLM, five rewards, gradient checkpointing, two minibatches.

Only the size is not real: random weights in Qwen2's architecture and a handful of rows.
"""

import json
import os
import subprocess

import pytest
import runs
import tiny
from transformers import Qwen2Config, Qwen2ForCausalLM

from align.files.folder import is_done

pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of random weights in the recipe's architecture."""
    folder = tmp_path_factory.mktemp("qwen")
    tokenizer = tiny.chat_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.vllm
@pytest.mark.slow
def test_it_trains_on_local_weights_and_a_local_file(weights, tmp_path):
    rows = [{"problem": f"What is {i} + 1?", "solution": f"\\boxed{{{i + 1}}}"} for i in range(12)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [*runs.LAUNCH, "scripts/grpo.py"]
    command += ["--recipe", "qwen0.5b", "--model", str(weights), "--data", str(file)]
    command += ["--out", str(tmp_path / "run"), "--steps", "2", "--prompts", "4", "--samples", "4"]
    command += ["--sampling.max-tokens", "140", "--sampling.max-prompt-tokens", "200"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"ACCELERATE_USE_CPU": "true"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert is_done(tmp_path / "run" / "grpo")
    metrics = [
        json.loads(line)
        for line in (tmp_path / "run" / "grpo" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in metrics] == [1, 2]
    parts = {name for name in metrics[0] if name.startswith("reward/")}
    assert parts == {
        f"reward/{name}"
        for name in ("accuracy", "format", "reasoning_steps", "cosine", "repetition")
    }
    assert "kl" in metrics[0] and "kl" not in metrics[1]  # measured every tenth step
    # The weights are float32 and vLLM's bfloat16: 1 part in 256 of logits of about 1.
    assert metrics[0]["mismatch/logprob"] < 0.02
