"""R1-Zero on Qwen2.5-0.5B, the base model: GRPO alone, rewarded for accuracy and format.

The prompt is a plain string; a base model has learnt no chat template to speak of.
"""

from dataclasses import replace

import data
import rewards
from align.config import Evaluation, Sampling
from align.recipe import Recipe
from recipes.qwen0_5b import GRPO

RECIPE = Recipe(
    name="qwen0.5b-zero",
    stages=(
        replace(
            GRPO,
            model="Qwen/Qwen2.5-0.5B",
            data=data.NuminaMathTIR(style="r1-zero"),
            reward=rewards.WeightedSum(((1.0, rewards.Accuracy()), (0.2, rewards.Format()))),
        ),
    ),
    evaluations=(
        Evaluation(
            data=data.GSM8K(split="test", style="r1-zero"),
            sampling=Sampling(temperature=0.0, max_prompt_tokens=512, max_tokens=1024),
        ),
    ),
)
