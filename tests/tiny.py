"""Tiny models and a GRPO stage around one of them, made from configurations alone.

The stage is the real one; only its sampler is a stand-in (`PreparedEngine`) that hands out
completions made beforehand, so that a test knows the batch. `trl_peer` has the model folder, the
rollouts and TRL's side of the comparison.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import trl_peer
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel
from trl_peer import Rollout

import data
from align.config import Compute, Grpo, Sampling
from align.loop import Loop
from align.modeling.policy import Policy
from align.models import load_causal_lm
from align.rollout import Request, Sample
from align.stages.context import Context
from align.stages.grpo import GrpoStage
from align.training.batch import Batch

CHAT_FOLDER = Path(__file__).resolve().parent.parent / "recipes" / "tiny_model"
LONGEST = 12  # completion tokens
SHAPE = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def model(config: type = LlamaConfig, **changes: Any) -> PreTrainedModel:
    """A random float32 model in eval mode; weights large enough that tokens differ."""
    torch.manual_seed(0)
    built = AutoModelForCausalLM.from_config(config(**(SHAPE | changes)), dtype=torch.float32)
    return built.eval()


def chat_tokenizer() -> Any:
    """One character a token, ChatML; pad 0, end 2."""
    return AutoTokenizer.from_pretrained(CHAT_FOLDER)


def plain_logprobs(
    model: PreTrainedModel, prompt: Sequence[int], completion: Sequence[int], temperature: float = 1
) -> Tensor:
    """[len(completion)], the textbook form: whole logits of one sequence, nothing of ours."""
    ids = torch.tensor([[*prompt, *completion]])
    log_p = (model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    return log_p.gather(1, torch.tensor(completion)[:, None])[:, 0]


@dataclass
class PreparedEngine:
    """A stand-in for a sampler: completions made beforehand, looked up by prompt."""

    answers: dict[tuple[int, ...], list[Sample]]
    asked: list[list[tuple[int, ...]]] = field(default_factory=list)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        pass

    def close(self) -> None:
        pass

    def sample(self, requests: Sequence[Request]) -> list[list[Sample]]:
        self.asked.append([tuple(request.prompt) for request in requests])
        return [self.answers[tuple(request.prompt)] for request in requests]


def rollout(prompts: int = 3) -> Rollout:
    """Four completions a prompt, of 1 to 12 tokens; one cut at the limit, so without end token."""
    made = trl_peer.make_rollout(prompts=prompts, generations=4, longest=LONGEST)
    made.completions[2][:] = range(5, 5 + LONGEST)
    draw = torch.Generator().manual_seed(9)
    sampler = [(-4 + torch.randn(n, generator=draw)).tolist() for n in made.lengths]
    return replace(made, sampler=sampler)


def recorded_reward(
    completions: list[str], recorded: list[list[float | None]], **_: Any
) -> list[float | None]:
    """TRL's protocol; `recorded` is a column that holds the rewards of a prompt's completions."""
    return [values[i % len(values)] for i, values in enumerate(recorded)]


def context(
    model: nn.Module,
    tokenizer: Any,
    *,
    folder: Path = Path(),
    path: Path = Path(),
    padded: bool = False,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> Context:
    """`model` as a policy, or a module that a stage trains as it is."""
    if isinstance(model, PreTrainedModel):
        model = Policy(model, temperature=temperature, entropy_gradient=entropy_gradient)
    return Context(
        accelerator=Accelerator(cpu=True, mixed_precision="no"),
        module=model,
        tokenizer=tokenizer,
        model_path=str(path),
        padded=padded,
        folder=folder,
    )


def grpo_stage(
    folder: Path,
    rollout: Rollout,
    *,
    samples: int = 4,
    padded: bool = False,
    token_budget: int = 10_000,
    temperature: float = 1.0,
    **config: Any,
) -> GrpoStage:
    """The real stage on a fresh copy of the model in `folder`, about to collect this rollout."""
    rows, answers = _by_prompt(rollout, samples)
    settings = {
        "model": str(folder),
        "data": data.Arithmetic(),
        "reward": recorded_reward,
        "steps": 1,
        "prompts": len(rows),
        "samples": samples,
        "importance": "off",
        "sampling": Sampling(temperature=temperature, max_prompt_tokens=64, max_tokens=LONGEST),
        "compute": Compute(precision="fp32", token_budget=token_budget),
    }
    return GrpoStage(
        Grpo(**(settings | config)),
        context(
            load_causal_lm(str(folder), device="cpu"),
            AutoTokenizer.from_pretrained(folder),
            path=folder,
            padded=padded,
            temperature=temperature,
            entropy_gradient="entropy" in config,
        ),
        Dataset.from_list(rows),
        PreparedEngine(answers),
    )


def _by_prompt(
    rollout: Rollout, samples: int
) -> tuple[list[dict[str, Any]], dict[tuple[int, ...], list[Sample]]]:
    """Rows of a data set, and what the stand-in sampler answers to each."""
    rows, answers = [], {}
    sampler = rollout.sampler or [[0.0] * len(ids) for ids in rollout.completions]
    for first in range(0, len(rollout.prompts), samples):
        prompt, group = rollout.prompts[first], slice(first, first + samples)
        rows.append(
            {
                "prompt": " ".join(f"w{token}" for token in prompt),
                "recorded": rollout.rewards[group],
            }
        )
        answers[tuple(prompt)] = [
            Sample(ids=ids, logprobs=logprobs, truncated=ids[-1] != trl_peer.EOS)
            for ids, logprobs in zip(rollout.completions[group], sampler[group], strict=True)
        ]
    assert len(answers) == len(rows), "two prompts of the rollout are the same"
    return rows, answers


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimizer step would do: loss, gradient by name, sums of the metrics."""

    loss: float
    gradient: dict[str, Tensor]
    metrics: dict[str, float]


def backward(
    stage: Any, batch: Batch, minibatch: int = 0, *, module: nn.Module | None = None
) -> Step:
    """Add up loss and gradient over the packs of one minibatch; the gradient of the stage's model,
    or of the whole `module` that holds it.
    """
    module = module or stage.context.model
    module.zero_grad()
    loss, metrics = 0.0, {}
    for pack in batch.minibatches[minibatch]:
        value, sums = stage.loss(pack)
        value.backward()
        loss += value.item()
        for name, term in (sums | {"tokens": torch.tensor(len(pack.target))}).items():
            metrics[name] = metrics.get(name, 0.0) + term.item()
    return Step(loss=loss, gradient=trl_peer.gradient(module), metrics=metrics)


@contextmanager
def loop(stage: Any, optimizer: torch.optim.Optimizer, folder: Path) -> Iterator[Loop]:
    """The real loop around a stage; what it does to the process's SIGTERM is undone at the end."""
    accelerator = stage.context.accelerator
    handler = signal.getsignal(signal.SIGTERM)
    with patch("align.processes.preempt._follow_launcher"):
        made = Loop(
            stage,
            stage.config,
            module=stage.context.module,
            optimizer=accelerator.prepare(optimizer),
            accelerator=accelerator,
            folder=folder,
        )
    try:
        yield made
    finally:
        signal.signal(signal.SIGTERM, handler)
