"""Real TRL trainers for preferences (DPO, KTO, reward model) on a tiny random Llama: the oracle.

As in `trl_peer`, whose model and tokenizer these are: no network, float32, no dropout (the models
have none), one CPU. A batch is hand-made token ids. TRL's own collator pads it and TRL's own
`compute_loss` does the rest; only its tokenizing is left out. Moving the policy away from the
reference is the caller's, after the trainer has loaded both from the same folder:

    folder = trl_peer.save_tiny_model(tmp_path / "model")
    trainer = dpo_trainer(folder, tmp_path / "out", loss_type=["ipo"], beta=0.3)
    move(trainer.model, seed=1, by=0.05)                  # the reference stays
    loss, gradient = dpo(trainer, make_pairs(4))          # TRL's, gradient by parameter name
    groups = pair_groups(make_pairs(4))                   # the same batch for us

    trainer = kto_trainer(folder, tmp_path / "out", beta=0.3)
    loss, gradient = kto(trainer, make_judged(5))
    groups = judged_groups(make_judged(5))                # each with its mismatched completion

    scorer = save_tiny_scorer(tmp_path / "scorer")
    trainer = reward_trainer(scorer, tmp_path / "out", center_rewards_coefficient=0.01)
    loss, gradient = reward(trainer, make_pairs(4, margins=True))

What TRL logs of the batch lies in `trainer._metrics["train"]`, such as "rewards/margins" or "kl".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trl_peer
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

from align.packing import Completion, Group

LossAndGradient = tuple[float, dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row for DPO or a reward model. Token ids; the completions with their end token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A row for KTO. Token ids; the completion with its end token."""

    prompt: list[int]
    completion: list[int]
    label: bool


def make_pairs(
    count: int, *, longest: int = 12, margins: bool = False, seed: int = 0
) -> list[Pair]:
    """Random pairs with prompts of 3 to 6 tokens, completions of 1 to `longest`, margins 0 to 1."""
    answers = trl_peer.make_rollout(prompts=count, generations=2, longest=longest, seed=seed)
    return [
        Pair(
            prompt=answers.prompts[2 * row],
            chosen=answers.completions[2 * row],
            rejected=answers.completions[2 * row + 1],
            margin=answers.rewards[2 * row] if margins else None,
        )
        for row in range(count)
    ]


def make_judged(
    count: int, *, labels: Sequence[bool] = (True, False, False), longest: int = 12, seed: int = 0
) -> list[Judged]:
    """Random rows, a prompt and one completion each; `labels` are repeated as often as needed."""
    answers = trl_peer.make_rollout(prompts=count, generations=1, longest=longest, seed=seed)
    return [
        Judged(prompt=prompt, completion=completion, label=labels[row % len(labels)])
        for row, (prompt, completion) in enumerate(
            zip(answers.prompts, answers.completions, strict=True)
        )
    ]


def mismatched(rows: Sequence[Judged]) -> list[list[int]]:
    """The completion TRL hangs on each row's prompt for the KL reference point: the one of the row
    before it in the batch, on the first prompt that of the last row."""
    return [rows[index - 1].completion for index in range(len(rows))]


def pair_groups(pairs: Sequence[Pair]) -> list[Group]:
    """The batch of `dpo` and `reward` for our packs: completions [chosen, rejected]."""
    return [_group(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]


def judged_groups(rows: Sequence[Judged]) -> list[Group]:
    """The batch of `kto` for our packs: completions [judged, mismatched]."""
    pairs = zip(rows, mismatched(rows), strict=True)
    return [_group(row.prompt, row.completion, other) for row, other in pairs]


def dpo_trainer(folder: Path, output_dir: Path, **config: Any) -> DPOTrainer:
    """Policy and reference loaded from `folder`; `config` goes to DPOConfig."""
    return _prepared(
        DPOTrainer(
            model=_causal_lm(folder),
            ref_model=_causal_lm(folder),
            args=DPOConfig(**_arguments(output_dir), **config),
            train_dataset=Dataset.from_list([{"prompt": "w2", "chosen": "w3", "rejected": "w4"}]),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
    )


def kto_trainer(folder: Path, output_dir: Path, **config: Any) -> KTOTrainer:
    """Policy and reference loaded from `folder`; `config` goes to KTOConfig."""
    return _prepared(
        KTOTrainer(
            model=_causal_lm(folder),
            ref_model=_causal_lm(folder),
            args=KTOConfig(**_arguments(output_dir), **config),
            train_dataset=Dataset.from_list([{"prompt": "w2", "completion": "w3", "label": True}]),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
    )


def reward_trainer(folder: Path, output_dir: Path, **config: Any) -> RewardTrainer:
    """The scorer of `folder`; `config` goes to RewardConfig."""
    scorer = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return _prepared(
        RewardTrainer(
            model=scorer,
            args=RewardConfig(**_arguments(output_dir), **config),
            train_dataset=Dataset.from_list([{"chosen": "w2 w3", "rejected": "w2 w4"}]),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
    )


def save_tiny_scorer(folder: Path, *, seed: int = 0) -> Path:
    """A random sequence classifier of one label in float32, saved with its tokenizer. It reads the
    last token whose id is not `config.pad_token_id`."""
    trl_peer.save_tiny_model(folder, seed=seed)
    config = AutoConfig.from_pretrained(folder, num_labels=1)
    scorer = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    scorer.save_pretrained(folder)
    return folder


def dpo(trainer: DPOTrainer, pairs: Sequence[Pair]) -> LossAndGradient:
    """TRL's loss of this batch, and its gradient by parameter name."""
    rows = [
        {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        for pair in pairs
    ]
    return trl_peer.loss_and_gradient(trainer, trainer.data_collator(rows))


def kto(trainer: KTOTrainer, rows: Sequence[Judged]) -> LossAndGradient:
    """TRL's loss of this batch, and its gradient by parameter name."""
    collated = [
        {
            "prompt_ids": row.prompt,
            "completion_ids": row.completion,
            "KL_completion_ids": other,
            "label": row.label,
        }
        for row, other in zip(rows, mismatched(rows), strict=True)
    ]
    return trl_peer.loss_and_gradient(trainer, trainer.data_collator(collated))


def reward(trainer: RewardTrainer, pairs: Sequence[Pair]) -> LossAndGradient:
    """TRL's loss of this batch, and its gradient by parameter name."""
    rows = [
        {"chosen_ids": pair.prompt + pair.chosen, "rejected_ids": pair.prompt + pair.rejected}
        | ({} if pair.margin is None else {"margin": pair.margin})
        for pair in pairs
    ]
    return trl_peer.loss_and_gradient(trainer, trainer.data_collator(rows))


def _group(prompt: list[int], *completions: list[int]) -> Group:
    return Group(prompt=prompt, completions=[Completion(ids=ids) for ids in completions])


def _causal_lm(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _arguments(output_dir: Path) -> dict[str, Any]:
    return {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 8,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
    }


def _prepared(trainer: Any) -> Any:
    trainer.model.train()
    return trainer
