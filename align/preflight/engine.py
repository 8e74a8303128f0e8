"""Can what samples completions start: is it installed, does its cache hold one sequence, does the
server answer?

vLLM (0.32) keeps keys and values in blocks of so many tokens and holds one block back; what it
needs for one sequence of the largest length is counted as it counts it itself.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from typing import Any

import psutil
import torch
from transformers import PretrainedConfig

from align.config import Engine
from align.preflight.subject import SAMPLING, Subject, longest
from align.preflight.weights import Size
from align.rollout.connection import address
from align.terminal.findings import Findings
from align.terminal.sizes import GIB, gib

BLOCK = {"cpu": 128, "cuda": 16}  # tokens of one of vLLM's blocks
WIDTH = 2  # bytes of a number in bfloat16
REACH = 3.0  # seconds to connect


def check(subject: Subject, found: Findings, size: Size, *, look: bool) -> None:
    """look: a look before a run, when a server that is away is no server that will be back."""
    config = subject.config
    if not isinstance(config, SAMPLING) or not subject.samples:
        return
    engine: Engine = config.engine
    if engine.kind == "vllm":
        _installed(found)
        if torch.cuda.is_available():
            _cache_on_gpu(subject, engine, size, found)
        else:
            _cache_on_cpu(subject, engine, found)
    elif engine.kind == "server" and look:
        _reached(engine, found)


def _installed(found: Findings) -> None:
    if importlib.util.find_spec("vllm") is None:
        found.error("engine", "vLLM is not installed, and --engine.kind is vllm",
                    "make setup, or the slower --engine.kind hf")  # fmt: skip


def _cache_on_cpu(subject: Subject, engine: Engine, found: Findings) -> None:
    if engine.sleep:
        found.error("engine", "--engine.sleep gives back a GPU's memory, and there is none here",
                    "leave --engine.sleep out")  # fmt: skip
    cache = round(engine.cpu_cache) * GIB  # whole GiB are what vLLM is told
    there = psutil.virtual_memory().total
    if cache > there:
        found.error("KV cache", f"--engine.cpu-cache {engine.cpu_cache:g}: this machine has "
                    f"{gib(there)} of memory in all", "--engine.cpu-cache 1")  # fmt: skip
        return
    _compare(subject, cache, "cpu", found, "--engine.cpu-cache")


def _cache_on_gpu(subject: Subject, engine: Engine, size: Size, found: Findings) -> None:
    place = int(os.environ.get("LOCAL_RANK", "0"))
    total = torch.cuda.get_device_properties(place).total_memory
    left = round(engine.gpu_memory * total) - WIDTH * size.whole
    _compare(subject, left, "cuda", found, "--engine.gpu-memory")


def _compare(subject: Subject, room: int, device: str, found: Findings, flag: str) -> None:
    a_token = bytes_a_token(subject.model_config)
    if a_token is None:
        return
    length, block = longest(subject.config), BLOCK[device]
    blocks = -(-length // block) + 1  # one is held back
    needed = blocks * block * a_token
    if needed <= room:
        found.note(
            "KV cache",
            f"{gib(room)} hold {room // (needed or 1):,} sequences of {length:,} tokens",
        )
        return
    fits = max(0, room // (block * a_token) - 1) * block
    cure = f"{flag} {-(-needed // GIB)}" if device == "cpu" else f"raise {flag}"
    found.error(
        "KV cache",
        f"one sequence of --sampling.max-prompt-tokens + --sampling.max-tokens = {length:,} tokens "
        f"needs {needed / GIB:.2f} GiB of keys and values, and there are {max(room, 0) / GIB:.2f}, "
        f"room for {fits:,} tokens",
        f"{cure}, or lower --sampling.max-tokens",
    )


def bytes_a_token(config: PretrainedConfig) -> int | None:
    """Keys and values of all layers; None where they are not kept in the usual way."""
    text: Any = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    layers = getattr(text, "num_hidden_layers", None)
    unusual = getattr(text, "kv_lora_rank", None) or getattr(text, "layer_types", None)
    if not heads or not layers or (unusual and _all_full(unusual) is False):
        return None
    kept = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return 2 * WIDTH * layers * kept * width


def _all_full(kinds: Any) -> bool:
    return isinstance(kinds, list) and set(kinds) == {"full_attention"}


def _reached(engine: Engine, found: Findings) -> None:
    try:
        host, port = address(engine.url)
        with socket.create_connection((host, port), timeout=REACH):
            pass
    except (OSError, ValueError) as error:
        found.error(
            "server",
            f"nothing answers at --engine.url {engine.url} ({error})",
            "start the server, or give its address with --engine.url http://HOST:PORT",
        )
