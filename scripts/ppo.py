"""PPO-RLHF (arXiv 1707.06347, 2203.02155) of a recipe's stage, with a reward model or rules.

accelerate launch scripts/ppo.py --recipe llama1b-rlhf
"""

from align.cli import launch
from align.config import Ppo

if __name__ == "__main__":
    launch(Ppo, __doc__)
