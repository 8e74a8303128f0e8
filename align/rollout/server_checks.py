"""What is found out about a server before anything is asked of it."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from align.config import Engine as EngineConfig
from align.config import Sampling
from align.rollout.connection import Connection, NotOfferedError, address
from align.rollout.engine import EngineError
from align.terminal.progress import console

PROBE = "Solve 12 + 7 * 3 = ?\n\tÄ naïve test — 第一步: \\frac{1}{2} <think>x</think>"


def start_command(path: str, engine: EngineConfig, sampling: Sampling) -> str:
    """What starts a server that takes the weights of a model in training."""
    host, port = address(engine.url)
    words = [
        "VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server",
        f"--model {quote(path)} --host {host} --port {port} --dtype bfloat16",
        f"--max-model-len {room(sampling)} --logprobs-mode processed_logprobs",
    ]
    if engine.served:
        words.append(f"--served-model-name {quote(engine.served)}")
    if engine.sync == "nccl":
        words.append(f"--weight-transfer-config '{json.dumps({'backend': 'nccl'})}'")
    elif not torch.cuda.is_available():
        # A seeded sample needs whole prompts on a CPU, whose generators cannot be wound back.
        words.append("--enforce-eager --no-enable-chunked-prefill")
    return " ".join(words)


def room(sampling: Sampling) -> int:
    """Tokens of the longest sequence that is asked for."""
    return sampling.max_prompt_tokens + sampling.max_tokens


async def served(connection: Connection, wanted: str, sampling: Sampling) -> str:
    """The model's name there. Raises EngineError where it is not served, or has no room."""
    answer = await connection.once("GET", "/v1/models")
    try:
        models = {each["id"]: each.get("max_model_len") for each in answer["data"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"{connection.url}/v1/models does not list models as vLLM does ({error!r}): "
            f"{str(answer)[:300]}; is it a vLLM server's address?"
        ) from error
    name = wanted or (next(iter(models)) if len(models) == 1 else "")
    if name not in models:
        said = f"does not serve {name!r}" if name else "serves several models"
        raise EngineError(
            f"the server at {connection.url} {said}: give one of these with --engine.served: "
            f"{', '.join(models) or 'none'}"
        )
    there, most = models[name], room(sampling)
    if there is not None and there < most:
        raise EngineError(
            f"the server at {connection.url} was started with room for {there} tokens, and "
            f"--sampling.max-prompt-tokens and --sampling.max-tokens together are {most}: "
            "lower one of them, or start it with a larger --max-model-len"
        )
    return name


async def check_tokenizer(
    connection: Connection, model: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """That a text has the same token ids here and there, where the server tells."""
    body = {"model": model, "prompt": PROBE, "add_special_tokens": False}
    try:
        theirs = (await connection.once("POST", "/tokenize", body)).get("tokens")
    except NotOfferedError:
        console.print(f"note: {connection.url} has no /tokenize; its tokenizer was not compared")
        return
    if theirs != tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
        raise EngineError(
            f"the server at {connection.url} serves {model}, whose tokenizer is not that of "
            f"{tokenizer.name_or_path}: the same token ids mean other words there. Give "
            "--model the model that is served"
        )


async def check_takes_weights(connection: Connection, command: str) -> None:
    """That it has the routes that change weights, and gives log-probs of what it samples from."""
    try:
        await connection.once("GET", "/weight_info")
    except NotOfferedError as error:
        raise EngineError(
            f"the server at {connection.url} takes no weights: it must be vLLM 0.32 or newer with "
            "its development routes, which are for trusted networks only. Start it with\n"
            f"  {command}"
        ) from error
    # The first answer takes the server seconds: it looks at the machine it runs on.
    info = await connection.once("GET", "/server_info?config_format=json", limit=60)
    mode = _at(info, "vllm_config", "model_config", "logprobs_mode")
    if mode not in (None, "processed_logprobs"):
        raise EngineError(
            f"the server at {connection.url} gives {mode}, which are not the log-probs of what it "
            f"samples from. Start it with\n  {command}"
        )


async def check_reads(connection: Connection, folder: Path) -> None:
    """That it reads weights in the folder: it is told to load a file of none, which changes
    nothing. One that cannot find the file ends itself, as it would at the first weights.
    """
    probe = folder / "probe"
    probe.mkdir(parents=True, exist_ok=True)
    save_file({}, probe / "model.safetensors")
    where = {"weights_path": str(probe), "is_checkpoint_format": False}
    try:
        await connection.once(
            "POST", "/collective_rpc", {"method": "reload_weights", "kwargs": where}, limit=60
        )
    except EngineError as error:
        raise EngineError(
            f"the server at {connection.url} cannot load what is written to {folder} ({error}): "
            "give a folder that both see under the same path with --engine.sync-folder, and start "
            "the server again"
        ) from error


def _at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
