"""Every preference stage on a random 2-layer model: seconds each, for tests and first tries."""

import data
import rewards
from align.config import Checkpoints, Dpo, Kto, Optim, Ppo, RewardModel
from align.model_reward import ModelReward
from align.recipe import Recipe
from recipes.tiny import COMPUTE, ENGINE, PROBLEMS, SAMPLING, SFT

PAIRS = data.RightWrong(source=PROBLEMS)
CHECKPOINTS = Checkpoints(every=2)
REWARD = rewards.WeightedSum(
    (
        (1.0, ModelReward(model="@reward_model", precision="fp32")),
        # Something that random completions differ in.
        (1.0, rewards.Repetition(n=1, max_penalty=-1.0)),
    )
)

RECIPE = Recipe(
    name="tiny-rlhf",
    stages=(
        SFT,
        RewardModel(
            model="@sft",
            data=PAIRS,
            batch=4,
            max_tokens=128,
            holdout=0.2,
            optim=Optim(lr=1e-3),
            compute=COMPUTE,
            checkpoints=CHECKPOINTS,
        ),
        Ppo(
            model="@sft",
            critic_model="@reward_model",
            data=PROBLEMS,
            reward=REWARD,
            steps=8,
            prompts=4,
            samples=2,
            minibatches=2,
            engine=ENGINE,
            sampling=SAMPLING,
            optim=Optim(lr=1e-3),
            critic_lr=1e-3,
            kl_target=1.0,
            compute=COMPUTE,
            checkpoints=CHECKPOINTS,
        ),
        Dpo(
            model="@sft",
            data=PAIRS,
            batch=4,
            max_tokens=128,
            optim=Optim(lr=1e-3),
            compute=COMPUTE,
            checkpoints=CHECKPOINTS,
        ),
        Kto(
            model="@sft",
            data=data.RightWrong(source=PROBLEMS, rows_as="labelled"),
            batch=8,
            max_tokens=128,
            optim=Optim(lr=1e-3),
            compute=COMPUTE,
            checkpoints=CHECKPOINTS,
        ),
    ),
)
