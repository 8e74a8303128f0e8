"""The R1 chain on two CPU cores: SmolLM2-135M-Instruct learns to reason about arithmetic, keeps its
manners, and teaches a student of 14 of its 30 layers.

DeepSeek-R1 (arXiv 2501.12948) in small: cold-start data by few-shot prompting, SFT on them, GRPO
for reasoning, rejection sampling, SFT on reasoning and general chat, GRPO on mixed prompts with two
reward models, distillation. Departure: the second SFT goes on from the weights of the first GRPO,
not from the base model's, as a few hundred rows would not bring the skill back. `student-cold` is
the same student trained on the cold-start data for about as many steps: what `student` is held
against. About 40 minutes.
"""

import data
import rewards
from align.config import (
    Checkpoints,
    Compute,
    Evaluation,
    Grpo,
    Keep,
    Optim,
    RewardModel,
    Sample,
    Sampling,
    Sft,
)
from align.model_reward import ModelReward
from align.recipe import Recipe
from data.prompting import FewShot
from recipes.smollm2 import MODEL

COMPUTE = Compute(token_budget=1536)
CHECKPOINTS = Checkpoints(every=10)
SAMPLING = Sampling(temperature=0.8, max_prompt_tokens=256, max_tokens=96)
STUDENT = "layers:14:@aligned"  # 58 % of the parameters
ACCURACY, FORM = rewards.Accuracy(), rewards.Format()
LANGUAGE = rewards.LanguageConsistency()


def _problems(size: int, seed: int, split: str = "train") -> data.Arithmetic:
    """The demo's: `12 + 7 * 3`."""
    return data.Arithmetic(split=split, size=size, max_factor=12, seed=seed)


def _sft(name: str, model: str, source: data.Source, *, epochs: float, lr: float) -> Sft:
    return Sft(
        name=name,
        model=model,
        data=source,
        epochs=epochs,
        batch=16,
        max_tokens=512,
        optim=Optim(lr=lr, schedule="cosine", warmup=0.1),
        compute=COMPUTE,
        checkpoints=Checkpoints(every=50),
    )


def _grpo(
    name: str, model: str, source: data.Source, reward: rewards.Reward, *, steps: int
) -> Grpo:
    return Grpo(
        name=name,
        model=model,
        data=source,
        reward=reward,
        steps=steps,
        prompts=16,
        samples=8,
        sampling=SAMPLING,
        optim=Optim(lr=1e-5),
        compute=COMPUTE,
        checkpoints=CHECKPOINTS,
    )


def _rejection(name: str, model: str, problems: data.Source, **options: object) -> Sample:
    return Sample(
        name=name,
        model=model,
        data=problems,
        prompts=100,
        reward=ACCURACY,
        sampling=SAMPLING,
        compute=COMPUTE,
        **options,  # type: ignore[arg-type]
    )


def _reward_model(name: str, pairs: data.Source) -> RewardModel:
    return RewardModel(
        name=name,
        model="@general",
        data=pairs,
        batch=16,
        max_tokens=256,
        holdout=0.2,
        optim=Optim(lr=2e-5, schedule="linear", warmup=0.1),
        compute=COMPUTE,
        checkpoints=CHECKPOINTS,
    )


# What the model could do once it was shown how, and worked examples, as people wrote the paper's.
COLD = data.Mixture(
    sources=((1.0, data.FromStage(stage="cold-data")), (3.0, _problems(192, seed=0))),
    size=256,
    repeat=True,
)
CHAT = ("general", "decline")  # kinds of everyday prompts; arithmetic has none

RECIPE = Recipe(
    name="smollm2-r1",
    stages=(
        Sample(
            name="cold-data",
            model=MODEL,
            data=_problems(200, seed=2),
            prompts=100,
            samples=8,
            reward=ACCURACY,
            prompting=FewShot(examples=_problems(16, seed=3), count=4),
            clean=True,
            keep=Keep(take="best"),
            sampling=Sampling(temperature=0.8, max_prompt_tokens=640, max_tokens=96),
            compute=COMPUTE,
        ),
        _sft("cold", MODEL, COLD, epochs=1.0, lr=5e-5),
        _grpo(
            "reason",
            "@cold",
            _problems(4000, seed=1),
            rewards.WeightedSum(((1.0, ACCURACY), (0.5, FORM), (0.2, LANGUAGE))),
            steps=20,
        ),
        _rejection(
            "rejection",
            "@reason",
            _problems(400, seed=4),
            samples=4,
            keep=Keep(format=True),
            general=data.Everyday(use="sft", thinking=True),
            general_share=0.3,
        ),
        _sft("general", "@reason", data.FromStage(stage="rejection"), epochs=1.0, lr=3e-5),
        _reward_model("helpful", data.Everyday(use="helpful", size=240)),
        _reward_model("harmless", data.Everyday(use="harmless", thinking=True, size=240)),
        _grpo(
            "aligned",
            "@general",
            data.Mixture(
                sources=((3.0, _problems(1000, seed=5)), (1.0, data.Everyday(use="prompts"))),
                size=400,
            ),
            rewards.WeightedSum(
                (
                    (1.0, rewards.Where(reward=ACCURACY, equals=(None,))),
                    (0.5, FORM),
                    (
                        0.2,
                        rewards.Where(
                            reward=ModelReward(model="@helpful", reads="answer"), equals=CHAT
                        ),
                    ),
                    (0.2, rewards.Where(reward=ModelReward(model="@harmless"), equals=CHAT)),
                )
            ),
            steps=8,
        ),
        _rejection(
            "teach",
            "@aligned",
            _problems(3000, seed=6),
            samples=2,
            keep=Keep(format=True),
        ),
        _sft("student-cold", STUDENT, COLD, epochs=20.0, lr=5e-4),
        _sft("student", STUDENT, data.FromStage(stage="teach"), epochs=3.0, lr=5e-4),
    ),
    evaluations=(
        Evaluation(
            data=_problems(1000, seed=0, split="test"),
            sampling=Sampling(temperature=0.0, max_prompt_tokens=256, max_tokens=96),
        ),
    ),
)
