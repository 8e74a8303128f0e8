"""Mistakes that only a trial can see, made inside a run before it starts."""

import dataclasses
import gc
from unittest.mock import patch

import torch

import align.models
import align.stages.modules
import align.stages.rolled
import rewards
from align.preflight import measured
from align.rollout.hf import HfEngine
from align.training.backward import Backward
from align.training.meter import Meter


def _loaded(change):
    """Do something to every causal model that is loaded."""
    original = align.models.load_causal_lm

    def load(*args, **kwargs):
        model = original(*args, **kwargs)
        change(model)
        return model

    align.models.load_causal_lm = load


def nan_weights():
    def change(model):
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3, 3] = float("nan")

    _loaded(change)


def attention_dropout():
    def change(model):
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.5
        model.config.attention_dropout = 0.5

    _loaded(change)


def reward_on_samples(what):
    """The reward is good on all but what a model writes: NaN, inf, too few, or an exception."""
    given = {"nan": float("nan"), "inf": float("inf")}

    def broken(completions, **_):
        if what == "raise":
            raise KeyError("no such thing")
        return [given.get(what, 1.0)] * (len(completions) - (what == "few"))

    original = align.stages.rolled.Roller.__init__

    def init(self, *args):
        original(self, *args)
        self.reward = rewards.from_trl(broken)

    align.stages.rolled.Roller.__init__ = init


def _sampled(change):
    original = HfEngine.sample

    def sample(self, requests):
        groups = original(self, requests)
        return [[change(one) for one in group] for group in groups]

    HfEngine.sample = sample


def other_weights():
    """The sampler's log-probs are another model's."""
    _sampled(lambda one: dataclasses.replace(one, logprobs=[x - 1 for x in one.logprobs]))


def all_cut():
    """Every completion is the same and is cut at the limit."""
    _sampled(lambda one: dataclasses.replace(one, ids=[5, 6], logprobs=[-0.5] * 2, truncated=True))


def goes_on():
    """Every completion goes on after a pad token, surely, until it is cut."""
    _sampled(
        lambda one: dataclasses.replace(one, ids=[5, 0, 6, 7], logprobs=[-0.5] * 4, truncated=True)
    )


def shows_moments():
    """What is held as moments when the longest batch begins."""
    original = Meter.begin

    def begin(self):
        tensors = [one for one in gc.get_objects() if torch.is_tensor(one) and one.dim() == 2]
        held = sum(one.nbytes for one in tensors if one.numel() and bool((one == 1).all()))
        print(f"held as moments: {held} bytes")
        return original(self)

    Meter.begin = begin


def no_room_for_moments():
    def full(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes")

    original = measured._moments

    def moments(module):
        with patch("torch.empty_like", full):
            return original(module)

    measured._moments = moments


def small_memory(most):
    """Packs above so many tokens do not fit."""
    original = Backward._backward

    def backward(self, one, *, synced):
        if one.tokens > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, one, synced=synced)

    Backward._backward = backward
