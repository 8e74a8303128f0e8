"""Run every stage of a recipe in order, each in a process of its own, then evaluate and report.

    python scripts/run.py --recipe smollm2
    python scripts/run.py --recipe smollm2 --grpo.steps 40 --evaluation.limit 200
    python scripts/run.py --recipe qwen0.5b --accelerate recipes/accelerate/ddp.yaml
    python scripts/run.py --recipe smollm2 --list                  # what would run, and why
    python scripts/run.py --recipe smollm2 --from grpo             # again, with all that reads it
    python scripts/run.py --recipe smollm2 --only grpo

A stage that is complete and unchanged is not run again, an interrupted one continues where it was,
a changed one runs again with every stage that reads what it wrote. What they held before is kept
in OUT/replaced.
"""

from align.chain import main

if __name__ == "__main__":
    main(__doc__)
