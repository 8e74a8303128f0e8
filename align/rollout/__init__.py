"""Samplers behind one protocol: `generate` of the trained model, vLLM in this process, a server."""

from align.rollout.engine import Engine, EngineError, Request, Sample, seed_of

__all__ = ["Engine", "EngineError", "Request", "Sample", "seed_of"]
