"""Sampling with vLLM inside the trainer's process; weights are handed over tensor by tensor.

vLLM computes in bfloat16, the trainer in float32 master weights under autocast: the two disagree by
rounding (about 0.045 nats a token on a 135M model), which the stage measures and corrects.
On a GPU every process of the launch holds an engine of its own beside its trainer, which may sleep
while that works: its weights wait in the machine's memory, its cache is dropped.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from align.config import Engine as EngineConfig
from align.config import Sampling
from align.rollout.engine import EngineError, Request, Sample

BATCHED_TOKENS = 4096  # tokens vLLM prefills at once; its own default plans for far more memory


class VllmEngine:
    """Samples from the model in folder `path` (or hub id) until `sync` brings other weights."""

    def __init__(
        self,
        path: str,
        *,
        engine: EngineConfig,
        sampling: Sampling,
        stop: Sequence[int],
        sequences: int,
        trust_remote_code: bool = False,
    ) -> None:
        self.sampling = sampling
        self.stop = list(stop)
        self.sleeps, self.asleep = engine.sleep, False
        if engine.sleep and not torch.cuda.is_available():
            raise EngineError(
                "--engine.sleep gives back a GPU's memory, and there is none here: leave it out"
            )
        _environment(engine)
        threads = torch.get_num_threads()
        warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
        try:
            from vllm import LLM
        except ImportError as error:
            raise EngineError(
                f"vLLM cannot be imported ({error}); run `make setup`, or sample with the slower "
                "engine: --engine.kind hf"
            ) from error

        length = sampling.max_prompt_tokens + sampling.max_tokens
        options: dict[str, Any] = {
            "model": path,
            "dtype": "bfloat16",
            "max_model_len": length,
            "max_num_seqs": max(1, min(sequences, 256)),
            "max_num_batched_tokens": max(BATCHED_TOKENS, length),
            "enforce_eager": engine.eager or not torch.cuda.is_available(),
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",
            "trust_remote_code": trust_remote_code,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if torch.cuda.is_available():
            options["gpu_memory_utilization"] = engine.gpu_memory
            options["enable_sleep_mode"] = engine.sleep
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                options["distributed_executor_backend"] = "external_launcher"
        else:
            # A prompt prefilled in two pieces makes vLLM wind its generator back, which the CPU's
            # generators cannot; a seeded sample needs whole prompts there.
            options["enable_chunked_prefill"] = False
        try:
            self.llm = LLM(**options)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise EngineError(
                f"vLLM does not start on {path}: {error}. Less memory: --engine.gpu-memory, "
                "--engine.cpu-cache, --sampling.max-tokens; or the slower --engine.kind hf"
            ) from error
        # vLLM binds and counts threads for itself; give the trainer its own back.
        torch.set_num_threads(threads)
        self._rest()

    def sample(self, requests: Sequence[Request]) -> list[list[Sample]]:
        from vllm import SamplingParams, TokensPrompt

        prompts, params = [], []
        for request in requests:
            for seed in request.seeds:
                prompts.append(TokensPrompt(prompt_token_ids=list(request.prompt)))
                params.append(
                    SamplingParams(
                        temperature=self.sampling.temperature,
                        top_p=self.sampling.top_p,
                        top_k=self.sampling.top_k,
                        max_tokens=self.sampling.max_tokens,
                        stop_token_ids=self.stop,
                        seed=seed,
                        logprobs=0,
                        detokenize=False,
                    )
                )
        self._wake()
        try:
            outputs = iter(self.llm.generate(prompts, params, use_tqdm=False))
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # none of the model's doing
        except (ValueError, RuntimeError) as error:
            raise EngineError(
                f"vLLM cannot sample from this model: {error}. Sample with the slower engine: "
                "--engine.kind hf"
            ) from error
        self._rest()
        return [[_sample(next(outputs).outputs[0]) for _ in request.seeds] for request in requests]

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace every weight, then forget what was cached under the old ones."""
        self._wake()
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        if not self.llm.reset_prefix_cache():
            raise EngineError("vLLM kept keys and values of the weights before; start again")

    def _rest(self) -> None:
        """Level 1 keeps the weights: not all that a layer holds comes with a sync."""
        if self.sleeps and not self.asleep:
            self.llm.sleep(level=1)
            self.asleep = True

    def _wake(self) -> None:
        if self.asleep:
            torch.cuda.empty_cache()  # what the trainer does not use, it still holds
            self.llm.wake_up()
            self.asleep = False

    def close(self) -> None:
        """Shut the engine down before the process group it shares with the trainer goes."""
        self.llm.llm_engine.engine_core.shutdown()


def _sample(output: Any) -> Sample:
    ids = list(output.token_ids)
    logprobs = [entry[token].logprob for token, entry in zip(ids, output.logprobs, strict=True)]
    return Sample(ids=ids, logprobs=logprobs, truncated=output.finish_reason == "length")


def _environment(engine: EngineConfig) -> None:
    """vLLM reads these when it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process: weights pass by reference
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # Whole GiB.
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(round(engine.cpu_cache))
