"""Rows for training and evaluation: sources, chat rendering, validation, mixtures. Torch-free and
quick to import.

rows = data.resolve("arithmetic").rows()          # or a path, a hub id, data.GSM8K(split="test"), …
data.validate.check_rows(rows, "grpo")
data.chat.prompt_ids(tokenizer, rows[0]["prompt"])
"""

from data import chat, fingerprint, prompting, validate
from data.arithmetic import Arithmetic
from data.everyday import Everyday
from data.gym import ReasoningGym
from data.mixture import Mixture
from data.names import resolve
from data.right_wrong import RightWrong
from data.rows import DataError, Row, RowError, Source
from data.sources import (
    GSM8K,
    HHRLHF,
    MATH500,
    BespokeStratos,
    Hub,
    Local,
    NuminaMathTIR,
    RottenTomatoes,
    UltraFeedback,
)
from data.stage_output import FromStage, from_hub, from_stages, placed
from data.validate import RewardCheckError

__all__ = [
    "GSM8K",
    "HHRLHF",
    "MATH500",
    "Arithmetic",
    "BespokeStratos",
    "DataError",
    "Everyday",
    "FromStage",
    "Hub",
    "Local",
    "Mixture",
    "NuminaMathTIR",
    "ReasoningGym",
    "RewardCheckError",
    "RightWrong",
    "RottenTomatoes",
    "Row",
    "RowError",
    "Source",
    "UltraFeedback",
    "chat",
    "fingerprint",
    "from_hub",
    "from_stages",
    "placed",
    "prompting",
    "resolve",
    "validate",
]
