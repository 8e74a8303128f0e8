"""The student of a distillation: a policy whose forward holds a pack against a teacher.

Two matrices of [tokens, vocabulary] are compared, in chunks of tokens: a chunk's logits are made,
compared and thrown away, and made again in the backward pass, so that neither matrix ever exists
whole. A pack of one chunk keeps them instead, which saves computing them twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from align.modeling.policy import Policy
from align.objectives.distill import divergence, forward_kl, reverse_kl
from align.packing import Pack

# Of one float32 matrix of logits. On a CPU larger chunks were slower; on a GPU each chunk costs a
# cast of the head to bfloat16.
CHUNK_BYTES = {"cpu": 2**25, "cuda": 2**29}


class Student(nn.Module):
    """A policy with a divergence for a loss; the teacher is handed in and no part of it."""

    def __init__(self, policy: Policy, *, beta: float) -> None:
        super().__init__()
        self.policy = policy
        self.beta = beta

    @property
    def model(self) -> PreTrainedModel:
        """What is exported."""
        return self.policy.model

    def forward(
        self, pack: Pack, teacher: Policy, *, chunk: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The divergence at each trained token, [C], and what is logged of it, [3, C]: forward KL,
        reverse KL, the student's entropy, in nats and without gradient.

        chunk: tokens compared at once; None is as many as CHUNK_BYTES have room for.
        """
        with torch.no_grad():
            theirs = teacher.predictors(pack)
        mine = self.policy.predictors(pack)
        vocabulary = self.policy.model.get_output_embeddings().weight.shape[0]
        size = chunk or max(1, CHUNK_BYTES[mine.device.type] // (4 * vocabulary))
        figures: dict[int, Tensor] = {}
        if len(mine) <= size:
            return self._compare(mine, theirs, teacher, figures, 0), figures[0]
        values = [
            checkpoint(self._compare, own, other, teacher, figures, i, use_reentrant=False)
            for i, (own, other) in enumerate(zip(mine.split(size), theirs.split(size), strict=True))
        ]
        return torch.cat(values), torch.cat(list(figures.values()), dim=1)

    def _compare(
        self, mine: Tensor, theirs: Tensor, teacher: Policy, figures: dict[int, Tensor], number: int
    ) -> Tensor:
        """The divergence of these states, [c, H] each; of the chunk `number`, what is logged goes
        into `figures`.
        """
        with torch.no_grad():
            other = teacher.logits(theirs)
        own = self.policy.logits(mine)
        # One tokenizer, yet the models of a family may have rows of padding after its last token.
        shared = min(own.shape[-1], other.shape[-1])
        pair = {
            "student": own[:, :shared].log_softmax(-1),
            "teacher": other[:, :shared].log_softmax(-1),
        }
        if number not in figures:  # once: the backward pass comes by again
            with torch.no_grad():
                spread = -(pair["student"].exp() * pair["student"]).sum(-1)
                figures[number] = torch.stack([forward_kl(**pair), reverse_kl(**pair), spread])
        return divergence(**pair, beta=self.beta)
