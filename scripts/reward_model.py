"""Reward model (Bradley-Terry) of a recipe's stage, on preference pairs.

accelerate launch scripts/reward_model.py --recipe llama1b-rlhf
"""

from align.cli import launch
from align.config import RewardModel

if __name__ == "__main__":
    launch(RewardModel, __doc__)
