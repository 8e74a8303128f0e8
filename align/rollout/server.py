"""Sampling from a vLLM server that runs elsewhere: another machine, another environment, or just
another process than the trainer's.

It speaks the OpenAI completions API with vLLM's additions: prompts go as token ids, and token ids
come back, so nothing is tokenized twice. A stage that trains hands it its weights
(`server_weights`, `server_nccl`); for one that only samples they stay as they are, as those of a
teacher too large for this machine. Started for the latter, for instance, by

    vllm serve org/name --logprobs-mode processed_logprobs

and for training by the command that `start_command` gives. A server that goes away while it is
needed is waited for; started again, it gets the weights again, and what was asked is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from align.config import Engine as EngineConfig
from align.config import Sampling
from align.rollout import server_checks as checks
from align.rollout.connection import Connection, GoneError
from align.rollout.engine import EngineError, Request, Sample, seed_of
from align.rollout.server_nccl import NcclSync
from align.rollout.server_weights import FolderSync, Weights
from align.rollout.together import on_first

Answers = list[list[Sample]]
AT_ONCE = 64  # completions asked for at the same time; the server batches them


class ServerEngine:
    """Samples from what `engine.url` serves. tokenizer: the stage's, which must be the server's.
    folder: of the stage that trains the model in `path`; None where the weights stay.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        engine: EngineConfig,
        sampling: Sampling,
        stop: Sequence[int],
        path: str = "",
        folder: Path | None = None,
    ) -> None:
        self.connection = Connection(engine)
        self.sampling, self.stop = sampling, list(stop)
        self.weights: Weights | None = None
        if folder is None:
            self.model = self.connection.run(lambda: self._checked(engine, tokenizer))
            return
        command = checks.start_command(path, engine, sampling)
        self.weights = _weights(self.connection, engine, folder.resolve())
        self.model = on_first(
            lambda: self.connection.run(lambda: self._checked(engine, tokenizer, command))
        )
        self.connection.advice = f"\nStart it again with\n  {command}\nand go on with --resume"

    def sample(self, requests: Sequence[Request]) -> Answers:
        return self.connection.run(
            lambda: self.connection.patiently(self._ready, lambda: self._all(requests))
        )

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Called on every process at once. Raises EngineError where the weights are to stay."""
        if self.weights is None:
            raise EngineError(
                "this server's weights stay as they are: it was not started for a stage that trains"
            )
        self.weights.send(weights)

    def close(self) -> None:
        """Give up what is being sampled; the server runs on."""
        self.connection.close()
        if self.weights is not None:
            self.weights.close()

    async def _checked(
        self, engine: EngineConfig, tokenizer: PreTrainedTokenizerBase, command: str = ""
    ) -> str:
        """The model's name there, once all that can be wrong has been looked for."""
        try:
            model = await checks.served(self.connection, engine.served, self.sampling)
        except GoneError as error:
            raise EngineError(f"{error}\n  {command}" if command else str(error)) from error
        await checks.check_tokenizer(self.connection, model, tokenizer)
        if self.weights is not None:
            await checks.check_takes_weights(self.connection, command)
            await self.weights.check()
        return model

    async def _ready(self) -> None:
        if self.weights is not None:
            await self.weights.ready()
        else:
            await checks.served(self.connection, self.model, self.sampling)

    async def _all(self, requests: Sequence[Request]) -> Answers:
        turns = asyncio.Semaphore(AT_ONCE)
        async with self.connection.client() as client:

            async def complete(prompt: Sequence[int], seed: int) -> Sample:
                async with turns:
                    return await self._complete(client, prompt, seed)

            asked = [(request.prompt, seed) for request in requests for seed in request.seeds]
            answers = iter(await asyncio.gather(*(complete(*each) for each in asked)))
        if self.weights is not None:
            await self.weights.check_held()
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
            # What is left open is taken from the model's own settings: Qwen's has a penalty.
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": seed,
            "stop_token_ids": self.stop,
            "logprobs": 0,
            "return_token_ids": True,
        }
        answer = await self.connection.call(client, "POST", "/v1/completions", body)
        try:
            return _completion(answer)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                f"the server at {self.connection.url} does not answer as vLLM 0.10.2 and newer do, "
                f"with token ids and log-probs ({error!r}): {str(answer)[:300]}"
            ) from error


def _weights(connection: Connection, engine: EngineConfig, stage: Path) -> Weights:
    if engine.sync == "nccl":
        return NcclSync(connection)
    if not engine.sync_folder:
        return FolderSync(connection, stage / "sync")
    # Several runs may be given one folder: the stage's own has a name that stays when it resumes.
    return FolderSync(
        connection, Path(engine.sync_folder).resolve() / f"{seed_of(str(stage)):016x}"
    )


def _completion(answer: dict[str, Any]) -> Sample:
    """Raises KeyError, IndexError, TypeError or ValueError for what is none."""
    choice = answer["choices"][0]
    ids, logprobs = list(choice["token_ids"]), list(choice["logprobs"]["token_logprobs"])
    if len(ids) != len(logprobs):
        raise ValueError(f"{len(ids)} token ids and {len(logprobs)} log-probs")
    if choice["finish_reason"] not in ("stop", "length"):
        raise ValueError(f"finish_reason {choice['finish_reason']!r}")
    return Sample(ids=ids, logprobs=logprobs, truncated=choice["finish_reason"] == "length")
