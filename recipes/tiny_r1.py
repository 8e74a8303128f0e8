"""The whole R1 chain on a random 2-layer model: seconds a stage, for tests and first tries."""

import data
import rewards
from align.config import Grpo, Keep, Optim, RewardModel, Sample, Sampling, Sft
from align.model_reward import ModelReward
from align.recipe import Recipe
from data.prompting import FewShot
from recipes.tiny import COMPUTE, ENGINE, PROBLEMS, SAMPLING
from recipes.tiny_rlhf import CHECKPOINTS, PAIRS

# What a random model can earn, and random completions differ in.
VARIED = rewards.WeightedSum(
    (
        (1.0, rewards.SoftOverlong(max_len=16, cache=16)),
        (1.0, rewards.Repetition(n=1, max_penalty=-1.0)),
    )
)
KEEP = Keep(min_reward=-2.0, repetition=1.0, language_share=0.0, duplicates=1.0)
CHAT = data.Everyday(size=8)


def _sft(name: str, model: str, source: data.Source) -> Sft:
    return Sft(
        name=name,
        model=model,
        data=source,
        batch=8,
        max_tokens=512,
        optim=Optim(lr=3e-3),
        compute=COMPUTE,
        checkpoints=CHECKPOINTS,
    )


def _grpo(name: str, model: str, source: data.Source, reward: rewards.Reward) -> Grpo:
    return Grpo(
        name=name,
        model=model,
        data=source,
        reward=reward,
        steps=4,
        prompts=4,
        samples=4,
        engine=ENGINE,
        sampling=Sampling(max_prompt_tokens=256, max_tokens=16),
        optim=Optim(lr=1e-3),
        compute=COMPUTE,
        checkpoints=CHECKPOINTS,
    )


RECIPE = Recipe(
    name="tiny-r1",
    stages=(
        Sample(
            name="cold-data",
            model="random:recipes/tiny_model",
            data=PROBLEMS,
            limit=12,
            prompts=4,
            samples=2,
            reward=VARIED,
            prompting=FewShot(examples=PROBLEMS, count=2),
            keep=KEEP,
            engine=ENGINE,
            sampling=Sampling(max_prompt_tokens=256, max_tokens=16),
            compute=COMPUTE,
        ),
        _sft("cold", "random:recipes/tiny_model", data.FromStage(stage="cold-data")),
        _grpo("reason", "@cold", PROBLEMS, VARIED),
        Sample(
            name="rejection",
            model="@reason",
            data=PROBLEMS,
            limit=16,
            prompts=4,
            samples=2,
            reward=VARIED,
            keep=KEEP,
            general=CHAT,
            general_share=0.2,
            engine=ENGINE,
            sampling=SAMPLING,
            compute=COMPUTE,
        ),
        _sft("general", "@reason", data.FromStage(stage="rejection")),
        RewardModel(
            name="helpful",
            model="@general",
            data=PAIRS,
            batch=8,
            max_tokens=128,
            holdout=0.2,
            optim=Optim(lr=1e-3),
            compute=COMPUTE,
            checkpoints=CHECKPOINTS,
        ),
        _grpo(
            "aligned",
            "@general",
            data.Mixture(
                sources=((0.5, PROBLEMS), (0.5, data.Everyday(use="prompts", size=16))), size=16
            ),
            rewards.WeightedSum(
                (
                    (1.0, rewards.Where(reward=VARIED, equals=(None,))),
                    (
                        1.0,
                        rewards.Where(
                            reward=ModelReward(model="@helpful", precision="fp32"),
                            equals=("general", "decline"),
                        ),
                    ),
                )
            ),
        ),
        _sft("student", "layers:1:@aligned", data.FromStage(stage="rejection")),
    ),
)
