"""Llama-3.2-1B-Instruct by classic RLHF: SFT, reward model, PPO, on UltraFeedback and HH-RLHF.

The reward model reads helpfulness and harmlessness pairs together, three to one, at 1e-5 for one
epoch. PPO goes at 1e-6 with a critic that starts from the reward model, one completion a prompt, a
KL of 0.05 taken from the reward: starting values as usual at this size, not tuned ones. For eight
GPUs:

    python scripts/run.py --recipe llama1b-rlhf --accelerate recipes/accelerate/ddp.yaml
"""

import data
from align.config import Checkpoints, Compute, Engine, Optim, Ppo, RewardModel, Sampling, Sft
from align.model_reward import ModelReward
from align.recipe import Recipe

COMPUTE = Compute(token_budget=16_384, gradient_checkpointing=True)
CHECKPOINTS = Checkpoints(every=50)

RECIPE = Recipe(
    name="llama1b-rlhf",
    stages=(
        Sft(
            model="meta-llama/Llama-3.2-1B-Instruct",
            data=data.UltraFeedback(use="sft"),
            batch=128,
            max_tokens=2048,
            optim=Optim(lr=1e-5, schedule="cosine", warmup=0.05),
            compute=COMPUTE,
            checkpoints=CHECKPOINTS,
        ),
        RewardModel(
            model="@sft",
            data=data.Mixture(sources=((3.0, data.UltraFeedback()), (1.0, data.HHRLHF()))),
            batch=128,
            max_tokens=2048,
            holdout=0.02,
            center=0.01,
            optim=Optim(lr=1e-5, schedule="linear", warmup=0.05),
            compute=COMPUTE,
            checkpoints=CHECKPOINTS,
        ),
        Ppo(
            model="@sft",
            critic_model="@reward_model",
            data=data.Mixture(sources=((3.0, data.UltraFeedback()), (1.0, data.HHRLHF())), seed=1),
            reward=ModelReward(model="@reward_model", token_budget=32_768),
            steps=200,
            prompts=256,
            samples=1,
            minibatches=4,
            iterations=1,
            engine=Engine(eager=False),
            sampling=Sampling(max_prompt_tokens=1024, max_tokens=512),
            optim=Optim(lr=1e-6, warmup=0.05),
            critic_lr=5e-6,
            critic_warmup=5,
            beta=0.05,
            truncated_penalty=1.0,
            compute=COMPUTE,
            checkpoints=CHECKPOINTS,
            samples_logged=64,
        ),
    ),
)
