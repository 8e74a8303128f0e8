"""The R1 chain on Qwen2.5-0.5B: cold start, reasoning RL, rejection sampling, SFT on reasoning and
general chat, RL on mixed prompts, a student of half the layers.

DeepSeek-R1's stages (arXiv 2501.12948, section 2.3) on public data: Bespoke-Stratos-17k for the
cold start, NuminaMath-TIR for reasoning, UltraFeedback for helpfulness, HH-RLHF (which holds pairs
of both kinds) for harmlessness. `student-cold` is the same student on the cold-start data, to hold
the student against. Starting values as usual at this size, not tuned ones. For eight GPUs:

    python scripts/run.py --recipe qwen0.5b-r1 --accelerate recipes/accelerate/ddp.yaml
"""

from dataclasses import replace

import data
import rewards
from align.config import (
    Engine,
    Keep,
    Optim,
    RewardModel,
    Sample,
    Sampling,
    Sft,
)
from align.model_reward import ModelReward
from align.recipe import Recipe
from recipes.qwen0_5b import GRPO
from recipes.qwen0_5b import RECIPE as QWEN

COMPUTE = GRPO.compute
CHECKPOINTS = GRPO.checkpoints
MATH = data.NuminaMathTIR(style="r1")
HELPFUL, HARMLESS = data.UltraFeedback(), data.HHRLHF()
REASONING = (
    (1.0, rewards.Accuracy()),
    (0.2, rewards.Format()),
    (0.2, rewards.LanguageConsistency()),
)
LONG = Sampling(max_prompt_tokens=512, max_tokens=1024)


def _sft(name: str, model: str, source: data.Source, *, epochs: float) -> Sft:
    return Sft(
        name=name,
        model=model,
        data=source,
        epochs=epochs,
        batch=64,
        max_tokens=4096,
        optim=Optim(lr=2e-5, schedule="cosine", warmup=0.05),
        compute=COMPUTE,
        checkpoints=CHECKPOINTS,
    )


def _reward_model(name: str, pairs: data.Source) -> RewardModel:
    return RewardModel(
        name=name,
        model="@general",
        data=pairs,
        batch=128,
        max_tokens=2048,
        holdout=0.02,
        center=0.01,
        compute=COMPUTE,
        checkpoints=CHECKPOINTS,
    )


RECIPE = Recipe(
    name="qwen0.5b-r1",
    stages=(
        _sft("cold", "Qwen/Qwen2.5-0.5B", data.BespokeStratos(style="r1"), epochs=1.0),
        replace(
            GRPO,
            name="reason",
            model="@cold",
            data=MATH,
            reward=rewards.WeightedSum(REASONING),
            steps=300,
        ),
        Sample(
            name="rejection",
            model="@reason",
            data=replace(MATH, seed=1),
            limit=20_000,
            samples=4,
            prompts=512,
            reward=rewards.Accuracy(),
            keep=Keep(per_prompt=2, format=True),
            general=data.UltraFeedback(use="sft"),
            general_share=0.25,
            engine=Engine(gpu_memory=0.8, eager=False),
            sampling=LONG,
        ),
        # From the base model again, as in the paper.
        _sft("general", "Qwen/Qwen2.5-0.5B", data.FromStage(stage="rejection"), epochs=2.0),
        _reward_model("helpful", HELPFUL),
        _reward_model("harmless", HARMLESS),
        replace(
            GRPO,
            name="aligned",
            model="@general",
            # `origin` tells each row's source, and so which rewards apply.
            data=data.Mixture(
                sources=((2.0, MATH), (1.0, HELPFUL), (1.0, HARMLESS)), origin="kind"
            ),
            reward=rewards.WeightedSum(
                (
                    *(
                        (weight, rewards.Where(reward=reward, equals=(MATH.name,)))
                        for weight, reward in REASONING
                    ),
                    (
                        0.5,
                        rewards.Where(
                            reward=ModelReward(model="@helpful", reads="answer"),
                            equals=(HELPFUL.name,),
                        ),
                    ),
                    (
                        0.5,
                        rewards.Where(
                            reward=ModelReward(model="@harmless"),
                            equals=(HELPFUL.name, HARMLESS.name),
                        ),
                    ),
                )
            ),
            steps=100,
        ),
        Sample(
            name="teach",
            model="@aligned",
            data=replace(MATH, seed=2),
            limit=40_000,
            samples=4,
            prompts=512,
            reward=rewards.Accuracy(),
            keep=Keep(per_prompt=2, format=True),
            engine=Engine(gpu_memory=0.8, eager=False),
            sampling=LONG,
        ),
        _sft("student-cold", "layers:12:@aligned", data.BespokeStratos(style="r1"), epochs=2.0),
        _sft("student", "layers:12:@aligned", data.FromStage(stage="teach"), epochs=2.0),
    ),
    evaluations=QWEN.evaluations,
)
