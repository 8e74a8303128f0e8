"""Qwen2.5-0.5B-Instruct by DPO on UltraFeedback: 61k pairs, one epoch, the prompt computed once.

beta 0.1, 64 pairs a step and a rate of 1e-6 with warm-up and decay: the paper's (2305.18290) values
but for the decay. A higher rate buys margin with fluency.
"""

import data
from align.config import Checkpoints, Compute, Dpo, Evaluation, Optim, Sampling
from align.recipe import Recipe

DPO = Dpo(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    data=data.UltraFeedback(),
    batch=64,
    max_tokens=1536,
    beta=0.1,
    optim=Optim(lr=1e-6, schedule="linear", warmup=0.1),
    compute=Compute(token_budget=16_384, gradient_checkpointing=True),
    checkpoints=Checkpoints(every=50),
)

RECIPE = Recipe(
    name="qwen0.5b-dpo",
    stages=(DPO,),
    # Whether what it could do before is still there.
    evaluations=(
        Evaluation(
            data=data.GSM8K(split="test", style="r1"),
            sampling=Sampling(temperature=0.0, max_prompt_tokens=512, max_tokens=1024),
        ),
    ),
)
