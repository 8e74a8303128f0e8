"""Stages: two functions each (`collect`, `loss`), and what surrounds every one of them."""

from align.stages.context import Launch
from align.stages.run import MISTAKES, run_stage

__all__ = ["MISTAKES", "Launch", "run_stage"]
