"""A random 2-layer model on two-number sums: seconds for a run, for tests and first tries."""

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

COMPUTE = Compute(precision="fp32", token_budget=512, threads=1)
SAMPLING = Sampling(max_prompt_tokens=64, max_tokens=16)
ENGINE = Engine(kind="hf")
PROBLEMS = data.Arithmetic(operators=1, max_number=9, symbols="+", size=40)

SFT = Sft(
    model="random:recipes/tiny_model",
    data=PROBLEMS,
    batch=8,
    max_tokens=128,
    optim=Optim(lr=3e-3),
    compute=COMPUTE,
    checkpoints=Checkpoints(every=2),
)

RECIPE = Recipe(
    name="tiny",
    stages=(
        SFT,
        Grpo(
            model="@sft",
            data=PROBLEMS,
            reward=rewards.WeightedSum(
                (
                    (1.0, rewards.Accuracy()),
                    # Something that random completions differ in.
                    (0.5, rewards.SoftOverlong(max_len=16, cache=16)),
                    (1.0, rewards.Repetition(n=1, max_penalty=-1.0)),
                )
            ),
            steps=12,
            prompts=4,
            samples=4,
            engine=ENGINE,
            sampling=SAMPLING,
            optim=Optim(lr=1e-3),
            compute=COMPUTE,
            checkpoints=Checkpoints(every=2),
        ),
    ),
    evaluations=(
        Evaluation(
            data=data.Arithmetic(split="test", operators=1, max_number=9, symbols="+", size=10),
            engine=ENGINE,
            sampling=Sampling(temperature=0.0, max_prompt_tokens=64, max_tokens=16),
        ),
    ),
)
