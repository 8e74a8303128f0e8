"""What the preflight's checks of the inputs look at, of values written out, and what they say."""

from pathlib import Path
from types import SimpleNamespace

import tiny
from datasets import Dataset
from mistaken import assistant, without
from transformers import LlamaConfig

from align.config import Grpo, Sft
from align.preflight.subject import Subject
from align.terminal.findings import Findings
from rewards import Accuracy


def subject(config, rows, *, tokenizer=None, model=None, out=Path("nowhere")):
    return Subject(
        config=config,
        rows=Dataset.from_list(rows),
        paths={config.model: str(tiny.CHAT_FOLDER)},
        out=out,
        tokenizer=tokenizer or tiny.chat_tokenizer(),
        model_config=model or LlamaConfig(vocab_size=100, eos_token_id=2),
    )


def grpo(**more):
    return Grpo(**{"model": "m", "data": SimpleNamespace(name="rows"), "reward": Accuracy()} | more)


def sft(**more):
    return Sft(**{"model": "m", "data": SimpleNamespace(name="rows")} | more)


def levels(check, *args, **more):
    found = Findings()
    check(*args, found, **more)
    return [(each.level, each.check) for each in found.found], found


def answered(rows):
    return without([row | {"completion": assistant(row["solution"])} for row in rows], "solution")
