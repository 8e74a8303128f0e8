"""Sampling from a vLLM server that runs elsewhere, such as a teacher too large for this machine.

It speaks the OpenAI completions API with vLLM's additions: prompts go as token ids, and token ids
come back, so nothing is tokenized twice. The server's weights stay as they are: it serves a stage
that samples and does not train. Started, for instance, by

    vllm serve org/name --logprobs-mode processed_logprobs

A server that wants a key gets the one in ALIGN_SERVER_KEY, and no other service's key.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import httpx
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from align.config import Engine as EngineConfig
from align.config import Sampling
from align.progress import console
from align.rollout.engine import EngineError, Request, Sample

Answers = list[list[Sample]]
CONNECT = 10.0  # seconds to reach the server, and for everything that is not a completion
AT_ONCE = 64  # completions asked for at the same time; the server batches them
PROBE = "Solve 12 + 7 * 3 = ?\n\tÄ naïve test — 第一步: \\frac{1}{2} <think>x</think>"


class ServerEngine:
    """Samples from what `engine.url` serves. tokenizer: the stage's, which must be the server's."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        engine: EngineConfig,
        sampling: Sampling,
        stop: Sequence[int],
    ) -> None:
        self.url = engine.url.rstrip("/").removesuffix("/v1")
        self.sampling, self.stop = sampling, list(stop)
        self.time_limit = engine.time_limit
        self.model = asyncio.run(self._served(engine.served))
        asyncio.run(self._check_tokenizer(tokenizer))

    def sample(self, requests: Sequence[Request]) -> Answers:
        # However this ends, by an error or by SIGTERM, completions under way are given up at once.
        while True:
            try:
                return asyncio.run(_until_sigterm(self._sample(requests)))
            except asyncio.CancelledError:
                # Now the process's own handler: it breaks in here, or it has us sample after all.
                signal.raise_signal(signal.SIGTERM)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Raises EngineError: a server's weights are not ours."""
        raise EngineError(
            "--engine.kind server cannot take over the weights of a model in training: it is for "
            "the stage sample; train with --engine.kind vllm or hf"
        )

    def close(self) -> None:
        """Nothing to stop: connections end with each call, and the server runs on."""

    async def _sample(self, requests: Sequence[Request]) -> Answers:
        turns = asyncio.Semaphore(AT_ONCE)
        async with self._client(self.time_limit) as client:

            async def complete(prompt: Sequence[int], seed: int) -> Sample:
                async with turns:
                    return await self._complete(client, prompt, seed)

            asked = [(request.prompt, seed) for request in requests for seed in request.seeds]
            answers = iter(await asyncio.gather(*(complete(*each) for each in asked)))
        return [[next(answers) for _ in request.seeds] for request in requests]

    async def _complete(
        self, client: httpx.AsyncClient, prompt: Sequence[int], seed: int
    ) -> Sample:
        sampling = self.sampling
        body = {
            "model": self.model,
            "prompt": list(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "seed": seed,
            "stop_token_ids": self.stop,
            "logprobs": 0,
            "return_token_ids": True,
        }
        answer = await self._call(client, "POST", "/v1/completions", body)
        try:
            return _completion(answer)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                f"the server at {self.url} does not answer as vLLM 0.10.2 and newer do, with token "
                f"ids and log-probs ({error!r}): {str(answer)[:300]}"
            ) from error

    async def _served(self, wanted: str) -> str:
        """The model's name there. Raises EngineError where it is not served, or has no room."""
        async with self._client(CONNECT) as client:
            models = {
                each["id"]: each for each in (await self._call(client, "GET", "/v1/models"))["data"]
            }
        name = wanted or (next(iter(models)) if len(models) == 1 else "")
        if name not in models:
            said = f"does not serve {name!r}" if name else "serves several models"
            raise EngineError(
                f"the server at {self.url} {said}: give one of these with --engine.served: "
                f"{', '.join(models) or 'none'}"
            )
        room = models[name].get("max_model_len")
        most = self.sampling.max_prompt_tokens + self.sampling.max_tokens
        if room is not None and room < most:
            raise EngineError(
                f"the server at {self.url} was started with room for {room} tokens, and "
                f"--sampling.max-prompt-tokens and --sampling.max-tokens together are {most}: "
                "lower one of them, or start it with a larger --max-model-len"
            )
        return name

    async def _check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """That a text has the same token ids here and there, where the server tells."""
        body = {"model": self.model, "prompt": PROBE, "add_special_tokens": False}
        try:
            async with self._client(CONNECT) as client:
                theirs = (await self._call(client, "POST", "/tokenize", body))["tokens"]
        except _NotOfferedError:
            console.print(f"note: {self.url} has no /tokenize; its tokenizer was not compared")
            return
        if theirs != tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
            raise EngineError(
                f"the server at {self.url} serves {self.model}, whose tokenizer is not that of "
                f"{tokenizer.name_or_path}: the same token ids mean other words there. Give "
                "--model the model that is served"
            )

    def _client(self, limit: float) -> httpx.AsyncClient:
        key = os.environ.get("ALIGN_SERVER_KEY")
        return httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(limit, connect=CONNECT),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    async def _call(
        self, client: httpx.AsyncClient, method: str, path: str, body: Any = None
    ) -> dict[str, Any]:
        try:
            answer = await client.request(method, path, json=body)
        except httpx.ConnectError as error:
            raise EngineError(
                f"no server answers at {self.url} ({error}): start one, as with `vllm serve "
                "MODEL`, or give its address with --engine.url"
            ) from error
        except httpx.TimeoutException as error:
            raise EngineError(
                f"{self.url}{path} did not answer in time ({type(error).__name__}): see whether "
                "the server is well, or raise --engine.time-limit"
            ) from error
        except httpx.HTTPError as error:
            raise EngineError(f"{self.url}{path} broke off: {error!r}") from error
        return _content(answer, f"{self.url}{path}")


class _NotOfferedError(EngineError):
    """The server does not have that route."""


def _completion(answer: dict[str, Any]) -> Sample:
    """Raises KeyError, IndexError, TypeError or ValueError for what is none."""
    choice = answer["choices"][0]
    ids, logprobs = list(choice["token_ids"]), list(choice["logprobs"]["token_logprobs"])
    if len(ids) != len(logprobs):
        raise ValueError(f"{len(ids)} token ids and {len(logprobs)} log-probs")
    if choice["finish_reason"] not in ("stop", "length"):
        raise ValueError(f"finish_reason {choice['finish_reason']!r}")
    return Sample(ids=ids, logprobs=logprobs, truncated=choice["finish_reason"] == "length")


def _content(answer: httpx.Response, where: str) -> dict[str, Any]:
    if answer.status_code in (404, 405):
        raise _NotOfferedError(f"{where} is not there: is it a vLLM server's address?")
    if answer.is_error:
        raise EngineError(f"{where} answered {answer.status_code}: {answer.text[:500]}")
    try:
        content = answer.json()
    except ValueError as error:
        raise EngineError(f"{where} answered no JSON: is it a vLLM server's address?") from error
    if not isinstance(content, dict):
        raise EngineError(f"{where} answered no JSON object: is it a vLLM server's address?")
    return content


async def _until_sigterm(work: Coroutine[Any, Any, Answers]) -> Answers:
    """The work, cancelled by SIGTERM.

    The process's own handler may raise, and what is raised inside the event loop can be lost in one
    of its callbacks.
    """
    task = asyncio.current_task()
    assert task is not None
    loop, usual = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await work
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, usual)
