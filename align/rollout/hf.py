"""Sampling with `generate` of the very model that trains: no second copy of the weights, no sync.

Slower than vLLM, and bit-exact on one machine: a token is chosen by inverting the cumulative
distribution at one uniform number a position, drawn from the completion's own seed, so what comes
out depends on no global random state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from align.config import Sampling
from align.modeling.backbone import precision
from align.rollout.engine import Request, Sample

ROWS = 128  # completions decoded together; their KV cache is the memory


class HfEngine:
    """Samples from `model`; `stop` are the tokens that end a completion."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        sampling: Sampling,
        stop: Sequence[int],
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.sampling = sampling
        self.stop = list(stop)
        self.autocast = autocast

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Nothing to do: the sampler is the trained model."""

    def close(self) -> None:
        """Nothing to stop."""

    def sample(self, requests: Sequence[Request]) -> list[list[Sample]]:
        rows = [(request.prompt, seed) for request in requests for seed in request.seeds]
        drawn: list[Sample] = []
        for start in range(0, len(rows), ROWS):
            drawn += self._decode(rows[start : start + ROWS])
        result, at = [], 0
        for request in requests:
            result.append(drawn[at : at + len(request.seeds)])
            at += len(request.seeds)
        return result

    @torch.no_grad()
    def _decode(self, rows: Sequence[tuple[Sequence[int], int]]) -> list[Sample]:
        device = self.model.device
        width = max(len(prompt) for prompt, _ in rows)
        ids = torch.full((len(rows), width), self.stop[0])
        attended = torch.zeros((len(rows), width), dtype=torch.long)
        for i, (prompt, _) in enumerate(rows):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            attended[i, width - len(prompt) :] = 1
        chooser = _Chooser(self.sampling, [seed for _, seed in rows])
        was_training = self.model.training
        self.model.eval()
        with precision(device, self.autocast), _own_settings_off(self.model):
            out = self.model.generate(
                ids.to(device),
                attention_mask=attended.to(device),
                generation_config=self._generation_config(),
                logits_processor=LogitsProcessorList([chooser]),
            )
        self.model.train(was_training)
        return self._cut(out[:, width:].tolist(), torch.stack(chooser.logprobs, 1).tolist())

    def _cut(self, ids: list[list[int]], logprobs: list[list[float]]) -> list[Sample]:
        """Each row up to and including its first stop token."""
        samples = []
        for row, values in zip(ids, logprobs, strict=True):
            end = next((i for i, token in enumerate(row) if token in self.stop), None)
            length = len(row) if end is None else end + 1
            samples.append(
                Sample(ids=row[:length], logprobs=values[:length], truncated=end is None)
            )
        return samples

    def _generation_config(self) -> GenerationConfig:
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=self.sampling.max_tokens,
            eos_token_id=self.stop,
            pad_token_id=self.stop[0],
        )


@contextmanager
def _own_settings_off(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model has no generation settings of its own.

    `generate` fills what a call leaves open from there, and Qwen's instruct models keep a
    repetition penalty: samples would not come from the distribution that is trained.
    """
    kept = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept


class _Chooser(LogitsProcessor):
    """Leaves one finite logit a row, the token chosen, and keeps its log-probability."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self.greedy = sampling.temperature == 0
        self.warpers: list[LogitsProcessor] = []
        if not self.greedy:
            self.warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_k:
                self.warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self.warpers.append(TopPLogitsWarper(sampling.top_p))
        self.uniforms = torch.stack(
            [
                torch.rand(sampling.max_tokens, generator=torch.Generator().manual_seed(seed))
                for seed in seeds
            ]
        )
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float()
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        log_p = scores.log_softmax(-1)
        if self.greedy:
            chosen = log_p.argmax(-1, keepdim=True)
        else:
            cumulative = log_p.exp().cumsum(-1)
            uniform = self.uniforms[:, len(self.logprobs)].to(scores.device).unsqueeze(-1)
            chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
            chosen.clamp_(max=scores.shape[-1] - 1)
        self.logprobs.append(log_p.gather(-1, chosen).squeeze(-1))
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen, 0.0)
