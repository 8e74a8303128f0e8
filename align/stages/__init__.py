"""Stages: two functions each (`collect`, `loss`), and what surrounds every one of them."""

from align.stages.run import run_stage

__all__ = ["run_stage"]
