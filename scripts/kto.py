"""KTO (arXiv 2402.01306) of a recipe's stage, on completions labelled good or bad.

accelerate launch scripts/kto.py --recipe qwen0.5b-kto
"""

from align.cli import launch
from align.config import Kto

if __name__ == "__main__":
    launch(Kto, __doc__)
