"""A real `trl.GRPOTrainer` (or RLOOTrainer) on a tiny random Llama: the oracle for our objectives.

Everything is made from configurations, without a network. TRL's own code scores a hand-made rollout
(advantages, importance ratios, reference log-probabilities, token counts) and computes the loss;
only the drawing of samples is replaced.

    folder = save_tiny_model(tmp_path / "model")
    trainer = make_trainer(folder, tmp_path / "out", loss_type="dapo", beta=0.04)
    inputs = score(trainer, rollout)                 # TRL's padded tensors, [B, T]
    loss, gradient = loss_and_gradient(trainer, inputs)
    flat = flat_logprobs(trainer.model, rollout)     # ours, [C], without padding or TRL's kernels
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

PAD, EOS, VOCABULARY = 0, 1, 48


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Hand-made samples: one entry a completion, the completions of a prompt next to each other."""

    prompts: list[list[int]]
    completions: list[list[int]]
    rewards: list[float | None]
    sampler: list[list[float]] | None = None  # log-probabilities the sampler claims, per token

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([len(ids) for ids in self.completions])

    @property
    def sequence(self) -> Tensor:
        """[C], the completion each token of the flat layout belongs to."""
        return torch.arange(len(self.completions)).repeat_interleave(self.lengths)


def move(model: nn.Module, *, seed: int, by: float) -> None:
    """A random step of all weights, relative to their size: the policy some updates later."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            step = torch.randn(weight.shape, generator=draw)
            weight.add_(by * weight.std(correction=0).clamp(min=0.1) * step)


def make_rollout(
    *, prompts: int, generations: int, longest: int, seed: int = 0, missing: tuple[int, ...] = ()
) -> Rollout:
    """Random prompts of 3 to 6 tokens with ragged completions of 1 to `longest`, rewards 0 to 1."""
    draw = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (), generator=draw))
        return torch.randint(2, VOCABULARY, (length,), generator=draw).tolist()

    asked = [ids for ids in (tokens(3, 6) for _ in range(prompts)) for _ in range(generations)]
    answers = [[*tokens(0, longest - 1), EOS] for _ in asked]
    rewards: list[float | None] = torch.rand(len(asked), generator=draw).tolist()
    for index in missing:
        rewards[index] = None
    return Rollout(prompts=asked, completions=answers, rewards=rewards)


def tiny_tokenizer() -> FastTokenizer:
    """One word a token: `<pad>` 0, `<eos>` 1, then w2, w3, ..."""
    words = {"<pad>": PAD, "<eos>": EOS} | {f"w{i}": i for i in range(2, VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return FastTokenizer(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def save_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """A random 2-layer Llama in float32, saved with its tokenizer. Weights large enough that
    tokens differ in probability."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def make_trainer(
    model_folder: Path,
    output_dir: Path,
    *,
    batch: int = 8,
    vllm: bool = False,
    kind: type[GRPOTrainer] | type[RLOOTrainer] = GRPOTrainer,
    **config: Any,
) -> GRPOTrainer | RLOOTrainer:
    """A trainer in float32 on the CPU; `config` goes to its configuration.

    `vllm` turns the importance correction on without starting vLLM.
    """
    configuration = GRPOConfig if kind is GRPOTrainer else RLOOConfig
    arguments = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": batch,
        "num_generations": 4,
        "max_completion_length": 12,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
    }
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
        reward_funcs=_recorded_reward,
        args=configuration(**(arguments | config)),
        train_dataset=Dataset.from_list([{"prompt": "w2 w3"}] * batch),
        processing_class=FastTokenizer.from_pretrained(model_folder),
    )
    trainer.use_vllm = vllm
    # `Trainer.train` sets this one before the first step.
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    return trainer


def score(trainer: GRPOTrainer | RLOOTrainer, rollout: Rollout) -> dict[str, Tensor]:
    """TRL's scored batch for these samples: padded ids and masks, advantages, ratios, counts."""
    completions = [" ".join(f"w{i}" for i in ids) for ids in rollout.completions]
    if isinstance(trainer, GRPOTrainer):
        no_tools, extra_fields, no_images = None, {}, (None, None)
        ids = (rollout.prompts, rollout.completions)
        generated = (*ids, no_tools, completions, rollout.sampler, extra_fields, *no_images)
    else:
        generated = (rollout.prompts, rollout.completions, completions)
    trainer._generate = lambda prompts: generated
    rows = [{"prompt": "w2", "recorded": reward} for reward in rollout.rewards]
    return trainer._generate_and_score_completions(rows)


def loss_and_gradient(
    trainer: GRPOTrainer, inputs: dict[str, Tensor]
) -> tuple[float, dict[str, Tensor]]:
    """TRL's loss and its gradient by parameter name."""
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), gradient(trainer.model)


def gradient(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of what `backward` left, by parameter name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def flat_logprobs(model: torch.nn.Module, rollout: Rollout, *, temperature: float = 1.0) -> Tensor:
    """[C] log-probabilities of the completions' tokens, each sequence alone and without padding."""
    return torch.cat(
        [
            _completion_logprobs(model, prompt, completion, temperature)
            for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True)
        ]
    )


def padded(flat: Tensor, rollout: Rollout) -> Tensor:
    """[C] as TRL's [B, T], right-padded with 0."""
    parts = list(flat.split(rollout.lengths.tolist()))
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)


def relative_distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """|ours - theirs| / |theirs| over all parameters as one vector."""
    assert ours.keys() == theirs.keys()
    difference = torch.cat([(ours[name] - theirs[name]).flatten() for name in theirs])
    return (difference.norm() / torch.cat([g.flatten() for g in theirs.values()]).norm()).item()


def _completion_logprobs(
    model: torch.nn.Module, prompt: list[int], completion: list[int], temperature: float
) -> Tensor:
    ids = torch.tensor([prompt + completion])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    log_p = torch.log_softmax(logits.float() / temperature, dim=-1)
    return log_p.gather(1, torch.tensor(completion)[:, None])[:, 0]


def _recorded_reward(completions: list[str], recorded: list[float | None], **_: Any) -> list:
    return recorded
