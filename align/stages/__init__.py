"""Stages: two functions each (`collect`, `loss`), and what surrounds every one of them."""

from align.stages.run import MISTAKES, Launch, run_stage

__all__ = ["MISTAKES", "Launch", "run_stage"]
