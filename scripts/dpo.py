"""DPO (arXiv 2305.18290), IPO or hinge of a recipe's stage, on preference pairs.

accelerate launch scripts/dpo.py --recipe qwen0.5b-dpo
"""

from align.cli import launch
from align.config import Dpo

if __name__ == "__main__":
    launch(Dpo, __doc__)
