"""Sampling from a vLLM server that runs elsewhere, such as a teacher too large for this machine.

It speaks the OpenAI completions API with vLLM's additions: prompts go as token ids, and token ids
come back, so nothing is tokenized twice. The server's weights stay as they are: it serves a stage
that samples and does not train. Started, for instance, by

    vllm serve org/name --logprobs-mode processed_logprobs
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from align.config import Engine as EngineConfig
from align.config import Sampling
from align.progress import console
from align.rollout.engine import EngineError, Request, Sample

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
        key = os.environ.get("OPENAI_API_KEY")
        self.client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(engine.time_limit, connect=CONNECT, pool=None),
            limits=httpx.Limits(max_connections=AT_ONCE),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self.model = self._served(engine.served)
        self._check_tokenizer(tokenizer)

    def sample(self, requests: Sequence[Request]) -> list[list[Sample]]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            asked = [
                [threads.submit(self._complete, request.prompt, seed) for seed in request.seeds]
                for request in requests
            ]
            try:
                return [[answer.result() for answer in answers] for answers in asked]
            except EngineError:
                threads.shutdown(cancel_futures=True)
                raise

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Raises EngineError: a server's weights are not ours."""
        raise EngineError(
            "--engine.kind server cannot take over the weights of a model in training: it is for "
            "the stage sample; train with --engine.kind vllm or hf"
        )

    def close(self) -> None:
        """Let the connections go; the server runs on."""
        self.client.close()

    def _complete(self, prompt: Sequence[int], seed: int) -> Sample:
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
        choice = self._call("POST", "/v1/completions", body)["choices"][0]
        if choice.get("token_ids") is None:
            raise EngineError(
                f"the server at {self.url} returns no token ids: it must be vLLM 0.10.2 or newer"
            )
        return Sample(
            ids=choice["token_ids"],
            logprobs=choice["logprobs"]["token_logprobs"],
            truncated=choice["finish_reason"] == "length",
        )

    def _served(self, wanted: str) -> str:
        """The model's name there. Raises EngineError where it is not served, or has no room."""
        models = {
            each["id"]: each for each in self._call("GET", "/v1/models", limit=CONNECT)["data"]
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

    def _check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """That a text has the same token ids here and there, where the server tells."""
        body = {"model": self.model, "prompt": PROBE, "add_special_tokens": False}
        try:
            theirs = self._call("POST", "/tokenize", body, limit=CONNECT)["tokens"]
        except _NotOfferedError:
            console.print(f"note: {self.url} has no /tokenize; its tokenizer was not compared")
            return
        if theirs != tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
            raise EngineError(
                f"the server at {self.url} serves {self.model}, whose tokenizer is not that of "
                f"{tokenizer.name_or_path}: the same token ids mean other words there. Give "
                "--model the model that is served"
            )

    def _call(
        self, method: str, path: str, body: Any = None, *, limit: float | None = None
    ) -> dict[str, Any]:
        options: dict[str, Any] = {"timeout": limit} if limit else {}
        try:
            answer = self.client.request(method, path, json=body, **options)
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
            raise EngineError(f"{self.url}{path} broke off: {error}") from error
        return _content(answer, f"{self.url}{path}")


class _NotOfferedError(EngineError):
    """The server does not have that route."""


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
