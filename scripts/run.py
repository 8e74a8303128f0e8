"""Run every stage of a recipe in order, each in a process of its own, then evaluate and report.

    python scripts/run.py --recipe smollm2
    python scripts/run.py --recipe smollm2 --grpo.steps 40 --evaluation.limit 200
    python scripts/run.py --recipe qwen0.5b --accelerate recipes/accelerate/ddp.yaml

A stage that is complete is not run again, an interrupted one continues where it was.
"""

from align.chain import main

if __name__ == "__main__":
    main(__doc__)
