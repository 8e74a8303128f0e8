"""Distillation as of DeepSeek-R1 (arXiv 2501.12948, section 2.4): Qwen2.5-Math-1.5B is fine-tuned
on the kept answers of a large reasoning model, and nothing else.

The teacher here is a ready data set, Bespoke-Stratos-17k, 17,000 checked answers of DeepSeek-R1.
A teacher of your own that vLLM serves writes the same kind of rows:

    python scripts/sample.py --recipe qwen0.5b-r1 --stage teach --out runs/t --model TEACHER \\
      --engine.kind server --engine.url http://HOST:8000
    python scripts/run.py --recipe r1-distill-qwen1.5b --student.data runs/t/teach/data.jsonl

Answers are long: evaluations let them have 8,192 tokens, and MATH-500 is answered four times each.
"""

import data
from align.config import Checkpoints, Compute, Engine, Evaluation, Optim, Sampling, Sft
from align.recipe import Recipe

ENGINE = Engine(gpu_memory=0.85, eager=False)

RECIPE = Recipe(
    name="r1-distill-qwen1.5b",
    stages=(
        Sft(
            name="student",
            model="Qwen/Qwen2.5-Math-1.5B",
            data=data.BespokeStratos(style="r1"),
            epochs=3.0,
            batch=96,
            max_tokens=16_384,
            optim=Optim(lr=1e-5, schedule="cosine", warmup=0.1, betas=(0.9, 0.95)),
            compute=Compute(token_budget=16_384, gradient_checkpointing=True),
            checkpoints=Checkpoints(every=50),
        ),
    ),
    evaluations=(
        Evaluation(
            data=data.GSM8K(split="test", style="r1"),
            engine=ENGINE,
            sampling=Sampling(temperature=0.0, max_prompt_tokens=1024, max_tokens=8192),
        ),
        Evaluation(
            name="math-500",
            data=data.MATH500(style="r1"),
            engine=ENGINE,
            samples=4,
            sampling=Sampling(temperature=0.6, top_p=0.95, max_prompt_tokens=1024, max_tokens=8192),
        ),
    ),
)
