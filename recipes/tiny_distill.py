"""A tiny teacher and a student of one of its layers: seconds, for tests and first tries."""

from align.config import Checkpoints, Distill, Optim, Sft
from align.recipe import Recipe
from recipes.tiny import COMPUTE, ENGINE, PROBLEMS, SAMPLING

RECIPE = Recipe(
    name="tiny-distill",
    stages=(
        Sft(
            model="random:recipes/tiny_model",
            data=PROBLEMS,
            batch=8,
            max_tokens=128,
            optim=Optim(lr=3e-3),
            compute=COMPUTE,
            checkpoints=Checkpoints(every=2),
        ),
        Distill(
            model="layers:1:@sft",
            teacher="@sft",
            data=PROBLEMS,
            on_policy=0.5,
            steps=8,
            prompts=4,
            samples=2,
            engine=ENGINE,
            sampling=SAMPLING,
            optim=Optim(lr=1e-3),
            compute=COMPUTE,
            checkpoints=Checkpoints(every=2),
        ),
    ),
)
