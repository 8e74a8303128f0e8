"""Values that cannot work are refused where they are given, with the flag."""

import pytest

from align.config import (
    Checkpoints,
    Compute,
    ConfigError,
    Engine,
    Grpo,
    Keep,
    Optim,
    Ppo,
    Sample,
    Sampling,
    Sft,
)
from recipes.tiny import PROBLEMS
from rewards import Accuracy, Format

GIVEN = {"model": "m", "data": PROBLEMS, "reward": Accuracy()}


@pytest.mark.parametrize(
    ("make", "values", "said"),
    [
        (Engine, {"cpu_cache": 0.5}, r"--engine\.cpu-cache 0\.5.*at least 1"),
        (Engine, {"gpu_memory": 1.5}, r"--engine\.gpu-memory 1\.5.*a share"),
        (Engine, {"gpu_memory": 0.0}, r"--engine\.gpu-memory 0"),
        (Sampling, {"top_k": -1}, r"--sampling\.top-k -1.*0, which takes any"),
        (Sampling, {"temperature": float("inf")}, r"--sampling\.temperature inf"),
        (Compute, {"threads": -1}, r"--compute\.threads -1"),
        (Checkpoints, {"keep": 0}, r"--checkpoints\.keep 0"),
        (Checkpoints, {"every": -1}, r"--checkpoints\.every -1"),
        (Sft, {"model": "m", "data": PROBLEMS, "epochs": float("inf")}, "--epochs inf"),
        (Optim, {"weight_decay": float("inf")}, r"--optim\.weight-decay inf"),
        (Keep, {"language": "klingon"}, r"--keep\.language klingon.*en, "),
        (Grpo, {**GIVEN, "seed": -1}, "--seed -1"),
        (Grpo, {**GIVEN, "seed": 2**32}, "--seed 4294967296"),
        (Grpo, {**GIVEN, "beta": -0.1}, r"--beta -0\.1"),
        (Grpo, {**GIVEN, "kl_every": -1}, "--kl-every -1"),
        (Grpo, {**GIVEN, "ratio_max": 0.0}, r"--ratio-max 0\.0"),
        (Ppo, {**GIVEN, "importance_cap": 0.0}, r"--importance-cap 0\.0"),
        (Ppo, {**GIVEN, "samples_logged": -1}, "--samples-logged -1"),
        (Grpo, {**GIVEN, "reward": "accuracy"}, r"not 'accuracy'; .*rewards\.get\(name\)"),
        (Ppo, {**GIVEN, "reward": [Accuracy(), Format()]}, r"not a list; .*WeightedSum"),
        (Sample, {**GIVEN, "reward": Accuracy}, r"not the class Accuracy; .*Accuracy\("),
    ],
)
def test_values_that_cannot_work(make, values, said):
    with pytest.raises(ConfigError, match=said):
        make(**values)
