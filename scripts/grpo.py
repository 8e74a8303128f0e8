"""GRPO (arXiv 2402.03300) of a recipe's stage, with rule-based rewards.

accelerate launch scripts/grpo.py --recipe qwen0.5b
"""

from align.cli import launch
from align.config import Grpo

if __name__ == "__main__":
    launch(Grpo, __doc__)
