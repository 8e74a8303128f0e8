"""Supervised fine-tuning of a recipe's stage.

accelerate launch scripts/sft.py --recipe smollm2
"""

from align.cli import launch
from align.config import Sft

if __name__ == "__main__":
    launch(Sft, __doc__)
