"""Does the model know text like the data's? By what a token of it costs, against guessing: a
tokenizer of another model, of the same size or smaller, passes every other check.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from align.packing import Completion, Group
from align.preflight.contents import spoken
from align.stages.context import Context
from align.terminal.findings import Findings

GUESSING = 0.9  # of the nats that guessing costs
SURE = 0.8  # of these nats, in what the model expects: no model that was drawn at random is surer
REAL = 8_000  # tokens of a vocabulary from which on no text is as bad as guessing to a model
ROWS, TOKENS = 4, 64  # the longer a text, the more is copied from what stands before in it


def guess(context: Context) -> float:
    """Nats a token of guessing."""
    return math.log(context.model.config.get_text_config().vocab_size)


def made(config: Any) -> bool:
    """Whether the model's weights were asked to be random."""
    return "random:" in config.model


@torch.no_grad()
def nats_of_texts(stage: Any, config: Any, context: Context) -> tuple[float, float] | None:
    """Nats a token of the beginning of some rows' texts, under the policy, and its entropy there;
    every process computes the same. None where there is nothing to read, of a scorer, and of a
    model so small that it may know nothing else than what it was trained on.
    """
    if config.writes != "policy" or guess(context) < math.log(REAL):
        return None
    asked = [text for text in _texts(stage, context) if text.strip()]
    # With what the tokenizer puts in front of a text, without which some models know nothing.
    encoded = [context.tokenizer(text)["input_ids"][:TOKENS] for text in asked]
    groups = [
        Group(prompt=ids[:1], completions=[Completion(ids=ids[1:])])
        for ids in encoded
        if len(ids) > 1
    ]
    if not groups:
        return None
    context.policy.eval()
    packs = stage.packed(groups)
    device = context.accelerator.device
    log_p, entropy = zip(*(context.policy(one.to(device)) for one in packs), strict=True)
    return float(-torch.cat(log_p).mean()), float(torch.cat(entropy).mean())


def _texts(stage: Any, context: Context) -> list[str]:
    """What the prompts ask; of a stage that passes over rows, these as text again."""
    if hasattr(stage, "prompts"):
        return [spoken(stage.prompts.rows[row]).asked for row, _ in stage.prompts.kept[:ROWS]]
    rows = [getattr(row, "ids", None) or row.prompt for row in stage.rows[:ROWS]]
    return [context.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]


def strange(
    nats: float, config: Any, context: Context, found: Findings, *, entropy: float | None = None
) -> bool:
    """Whether that is certain. nats: a token of the data costs so much; entropy: the model expects
    it to.
    """
    each = guess(context)
    if made(config) or nats <= GUESSING * each:
        found.note("text", f"{nats:.1f} nats a token of the data, and guessing makes {each:.1f}")
        return False
    certain = entropy is not None and entropy < SURE * each
    found.report(
        "text",
        f"{nats:.1f} nats a token of the data, and guessing makes {each:.1f}: the model "
        + ("is sure of other words" if certain else "does not know this text at all"),
        "look whether its weights and its tokenizer belong together: put the model's own "
        "tokenizer files there",
        certain=certain,
    )
    return certain
