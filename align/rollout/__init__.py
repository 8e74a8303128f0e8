"""Samplers behind one protocol: `generate` of the trained model, or vLLM in the same process."""

from align.rollout.engine import Engine, EngineError, Request, Sample, seed_of

__all__ = ["Engine", "EngineError", "Request", "Sample", "seed_of"]
