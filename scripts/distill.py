"""On-policy distillation (GKD, arXiv 2306.13649) of a recipe's stage: a student follows a teacher.

accelerate launch scripts/distill.py --recipe tiny-distill
"""

from align.cli import launch
from align.config import Distill

if __name__ == "__main__":
    launch(Distill, __doc__)
