"""The arithmetic demo by GRPO and by PPO from the same cold start, at equal samples.

PPO has the same rule-based rewards and no reward model; the report compares the two on the same
held-out problems. Its critic starts at 0 and has the first step to itself.
"""

from align.config import Grpo, Optim, Ppo
from align.recipe import Recipe
from recipes.smollm2 import RECIPE as DEMO

GRPO = DEMO.stage(Grpo)
assert isinstance(GRPO, Grpo)

RECIPE = Recipe(
    name="smollm2-ppo",
    stages=(
        *DEMO.stages,
        Ppo(
            model="@sft",
            data=GRPO.data,
            reward=GRPO.reward,
            steps=GRPO.steps,
            prompts=GRPO.prompts,
            samples=GRPO.samples,
            sampling=GRPO.sampling,
            minibatches=2,
            iterations=1,
            optim=Optim(lr=1e-5),
            critic_lr=5e-5,
            critic_warmup=1,
            lam=1.0,
            beta=0.0,
            value_clip=0.0,
            compute=GRPO.compute,
            checkpoints=GRPO.checkpoints,
        ),
    ),
    evaluations=DEMO.evaluations,
)
