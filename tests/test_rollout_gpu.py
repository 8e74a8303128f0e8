"""What of vLLM takes a GPU: sleeping in this process, and weights by NCCL to a server's."""

import os
import shlex
import socket
import subprocess
import sys

import pytest
import runs
import tiny
import torch
from stand_in import STOP
from transformers import AutoConfig, AutoModelForCausalLM

from align.config import Engine, Sampling
from align.modeling.lora import merged_weights
from align.rollout import Request
from align.rollout.server import ServerEngine
from align.rollout.server_checks import start_command

pytestmark = pytest.mark.gpu
SAMPLING = Sampling(max_prompt_tokens=64, max_tokens=24)
REQUESTS = [Request(prompt=[7, 8, 9], seeds=list(range(8)))]


@pytest.fixture
def model(tmp_path):
    """On the GPU, and its folder."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("vllm", reason="vLLM is not installed (make setup)")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tiny.CHAT_FOLDER, head_dim=64, initializer_range=0.2)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    made.save_pretrained(tmp_path / "model")
    tiny.chat_tokenizer().save_pretrained(tmp_path / "model")
    return made.cuda(), str(tmp_path / "model")


@torch.no_grad()
def gap(model, groups):
    """Mean |engine's - trainer's| log-prob, nats a token."""
    differences = [
        tiny.plain_logprobs(model.cpu(), request.prompt, one.ids) - torch.tensor(one.logprobs)
        for request, samples in zip(REQUESTS, groups, strict=True)
        for one in samples
    ]
    model.cuda()
    return torch.cat(differences).abs().mean().item()


@torch.no_grad()
def move(model):
    for parameter in model.parameters():
        parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter))


def free():
    return torch.cuda.mem_get_info()[0]


def test_a_sleeping_engine_gives_its_memory_back_and_takes_weights(model):
    from align.rollout.vllm import VllmEngine

    model, path = model
    before = free()
    engine = VllmEngine(
        path,
        engine=Engine(sleep=True, gpu_memory=0.3),
        sampling=SAMPLING,
        stop=STOP,
        sequences=8,
    )
    kept = 0.3 * torch.cuda.mem_get_info()[1]
    assert before - free() < kept / 2
    for _ in range(2):
        engine.sync(merged_weights(model))
        assert before - free() > kept / 2  # awake
        assert gap(model, engine.sample(REQUESTS)) < 0.1
        assert before - free() < kept / 2
        move(model)
    engine.close()


def test_weights_by_nccl(model, tmp_path):
    """From the first GPU to a server on the second."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    model, path = model
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    settings = Engine(kind="server", sync="nccl", url=f"http://127.0.0.1:{port}")
    words = shlex.split(start_command(path, settings, SAMPLING))[2:]
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "CUDA_VISIBLE_DEVICES": "1"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, *words], env=environment, stdout=log, stderr=log)
    try:
        runs.wait_for(lambda: runs.healthy(settings.url), 240, what="the server")
        engine = ServerEngine(
            tiny.chat_tokenizer(), engine=settings, sampling=SAMPLING, stop=STOP, path=path,
            folder=tmp_path,
        )  # fmt: skip
        for _ in range(2):
            engine.sync(merged_weights(model))
            assert gap(model, engine.sample(REQUESTS)) < 0.1
            move(model)
        engine.close()
    finally:
        server.terminate()
        server.wait(60)
