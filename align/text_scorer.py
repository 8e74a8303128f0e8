"""A reward model that scores texts: rendered, packed by prompt, read off in the texts' order."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

import data
from align import models
from align.modeling.scorer import Scorer, trimmed
from align.packing import Completion, Group, pack
from align.probe import why_not_packed


class TextScorer:
    """Called with prompts and completion texts, equally many, it gives their scores."""

    def __init__(
        self,
        scorer: Scorer,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pad: int | None,
        token_budget: int,
        padded: bool,
    ) -> None:
        self.scorer = scorer
        self.tokenizer = tokenizer
        self.pad = pad
        self.token_budget = token_budget
        self.padded = padded

    @classmethod
    def load(cls, path: str, *, token_budget: int, precision: str) -> TextScorer:
        """The reward model in that folder, frozen, on this process's device."""
        tokenizer = models.load_tokenizer(path)
        model = models.load_classifier(path, device=_device())
        scorer = Scorer(model, autocast=torch.bfloat16 if precision == "bf16" else None)
        scorer.requires_grad_(False).eval()
        text = model.config.get_text_config()
        room = getattr(text, "max_position_embeddings", 0) or 0
        return cls(
            scorer,
            tokenizer,
            pad=text.pad_token_id,
            token_budget=token_budget,
            padded=why_not_packed(scorer, longest=room) is not None,
        )

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Any], texts: Sequence[str]) -> list[float]:
        groups: dict[str, Group] = {}
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            ids, completion = self._ids(prompt, text)
            columns: dict[str, float | Sequence[float]] = {"number": float(number)}
            mask = [0] * (len(completion) - 1) + [1]
            one = Completion(ids=completion, mask=mask, columns=columns)
            key = json.dumps(ids)
            groups.setdefault(key, Group(prompt=ids, completions=[])).completions.append(one)
        scores = [0.0] * len(texts)
        for one in pack(groups.values(), token_budget=self.token_budget, padded=self.padded):
            moved = one.to(self.scorer.device)
            numbers = moved.per_sequence("number").long().tolist()
            for number, score in zip(numbers, self.scorer(moved).tolist(), strict=True):
                scores[number] = score
        return scores

    def _ids(self, prompt: Any, text: str) -> tuple[list[int], list[int]]:
        """Prompt and completion as the reward model's training pairs were rendered."""
        plain = isinstance(prompt, str)
        row = {"prompt": prompt, "completion": text if plain else data.rows.assistant(text)}
        try:
            found = data.chat.render(self.tokenizer, row)
            start = found.mask.index(1)
            before, after = found.ids[:start], found.ids[start:]
        except data.chat.RenderError:  # a sampled text may hold what a training row must not
            before = data.chat.prompt_ids(self.tokenizer, prompt)
            after = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            stop = data.chat.stop_ids(self.tokenizer)
            after.append(self.tokenizer.eos_token_id if plain else stop[0])
        return before, trimmed(after, self.pad) or [self.tokenizer.eos_token_id]


def _device() -> torch.device:
    """This process's own; the process group may not be there yet, or at all."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
