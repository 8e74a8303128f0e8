"""Rejection sampling of a recipe's stage: the good ones of many samples, as a chat data set.

accelerate launch scripts/sample.py --recipe smollm2-r1
"""

from align.cli import launch
from align.config import Sample

if __name__ == "__main__":
    launch(Sample, __doc__)
