"""Qwen2.5-0.5B-Instruct by KTO on UltraFeedback's answers, each called good or bad on its own."""

import dataclasses

import data
from align.config import Kto
from recipes.qwen0_5b_dpo import DPO
from recipes.qwen0_5b_dpo import RECIPE as PAIRED

RECIPE = dataclasses.replace(
    PAIRED,
    name="qwen0.5b-kto",
    stages=(
        Kto(
            model=DPO.model,
            data=data.UltraFeedback(use="kto"),
            batch=128,
            max_tokens=DPO.max_tokens,
            beta=DPO.beta,
            optim=DPO.optim,
            compute=DPO.compute,
            checkpoints=DPO.checkpoints,
        ),
    ),
)
