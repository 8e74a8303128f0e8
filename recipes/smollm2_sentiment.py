"""RLHF on two CPU cores: SmolLM2-135M learns to continue the openings of film reviews kindly.

SFT on whole reviews teaches the form, a reward model learns from labelled ones which are kind, and
PPO moves the policy to what it likes, held back by a KL to where it came from. Reviews are
sentences labelled 1 or 0 (`text`, `label`), from the hub or from files of your own:

    python scripts/run.py --recipe smollm2-sentiment \
        --sft.data "reviews.jsonl?use=openings&split=train[:30%]" ...
"""

import data
from align.config import Compute, Engine, Optim, Ppo, RewardModel, Sampling, Sft
from align.model_reward import ModelReward
from align.recipe import Recipe
from recipes.smollm2 import MODEL

COMPUTE = Compute(token_budget=1536)
SAMPLING = Sampling(max_prompt_tokens=32, max_tokens=24)
PREFIX = "Movie review:"

RECIPE = Recipe(
    name="smollm2-sentiment",
    stages=(
        Sft(
            model=MODEL,
            data=data.RottenTomatoes(
                use="openings", prefix=PREFIX, split="train[:20%]", limit=1280
            ),
            batch=32,
            max_tokens=128,
            optim=Optim(lr=5e-5, schedule="cosine", warmup=0.1),
            compute=COMPUTE,
        ),
        RewardModel(
            model="@sft",
            data=data.RottenTomatoes(use="pairs", prefix=PREFIX, split="train[20%:80%]"),
            batch=32,
            max_tokens=128,
            holdout=0.15,
            optim=Optim(lr=3e-5, schedule="linear", warmup=0.1),
            compute=COMPUTE,
        ),
        Ppo(
            model="@sft",
            critic_model="@reward_model",
            data=data.RottenTomatoes(use="openings", prefix=PREFIX, split="train[80%:]"),
            reward=ModelReward(model="@reward_model"),
            steps=24,
            prompts=32,
            samples=4,
            minibatches=2,
            iterations=1,
            engine=Engine(),
            sampling=SAMPLING,
            optim=Optim(lr=2e-5),
            critic_lr=1e-5,
            beta=0.02,
            compute=COMPUTE,
        ),
    ),
)
