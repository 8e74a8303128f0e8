"""Samplers behind one protocol: `generate` of the trained model, or vLLM in the same process."""

from align.rollout.engine import Engine, Request, Sample, seed_of

__all__ = ["Engine", "Request", "Sample", "seed_of"]
