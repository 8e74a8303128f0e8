"""Modules that take a pack: the policy, scorers, the critic, and what computes them."""
