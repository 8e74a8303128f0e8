"""A tiny teacher and a student of one of its layers: seconds, for tests and first tries."""

from align.config import Checkpoints, Distill, Optim
from align.recipe import Recipe
from recipes.tiny import COMPUTE, ENGINE, PROBLEMS, SAMPLING, SFT

RECIPE = Recipe(
    name="tiny-distill",
    stages=(
        SFT,
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
