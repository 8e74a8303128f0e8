"""Align: LLM alignment fine-tuning. One loop, two functions a stage; see README.md."""

__version__ = "0.1.0"
