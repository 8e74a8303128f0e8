"""Sampling stages at the end of the recipe `tiny`, for runs in the nursery, and what hurts it."""

import dataclasses
import os
import signal
import threading

import data
import rewards
from align.config import Compute, Engine, Keep, Sample, Sampling

STAGE = Sample(
    model="random:recipes/tiny_model",
    data=data.Arithmetic(operators=1, max_number=9, symbols="+", size=20),
    # Random completions are never right, so nothing here judges correctness.
    reward=rewards.Repetition(n=1, max_penalty=-1.0),
    samples=8,
    prompts=6,
    engine=Engine(kind="hf"),
    sampling=Sampling(max_prompt_tokens=64, max_tokens=24),
    compute=Compute(precision="fp32", threads=1),
    keep=Keep(min_reward=-0.4, language="", repetition=1.0),
)
COLD = dataclasses.replace(
    STAGE,
    name="cold",
    # Characters are tokens here, and 512 the positions.
    prompting=data.prompting.FewShot(
        examples=data.Arithmetic(operators=1, max_number=9, symbols="+", size=9, seed=3), count=1
    ),
    sampling=Sampling(max_prompt_tokens=300, max_tokens=64),
    clean=True,
    keep=dataclasses.replace(STAGE.keep, min_reward=-1.0),
)
REFLECT = dataclasses.replace(
    STAGE,
    name="reflect",
    prompting=data.prompting.Reflect(instruction="Think, then check."),
    engine=Engine(kind="server", time_limit=100.0),
    limit=12,
)


def add(harm=None, *args):
    """Make the stages known to this process; then the harm, if any."""
    import recipes.tiny

    recipe = recipes.tiny.RECIPE
    recipes.tiny.RECIPE = dataclasses.replace(recipe, stages=(*recipe.stages, STAGE, COLD, REFLECT))
    if harm:
        globals()[harm](*args)


def killed_while_writing(batch):
    """SIGKILL with the first lines of that batch, and half of one more, on disk."""
    from align.stages.ledger import Ledger

    original, calls = Ledger.add, iter(range(1, 10**9))

    def add(self, lines):
        if next(calls) == batch:
            self.log.write(lines[:2])
            with self.log.path.open("ab") as file:
                file.write(b'{"row": 3, "prompt": [{"ro')
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, lines)

    Ledger.add = add


def killed_before_logging(batch):
    """SIGKILL with that batch in the ledger and not in metrics.jsonl."""
    from align.checkpoint import Log

    original, calls = Log.write, iter(range(1, 10**9))

    def write(self, rows):
        if self.path.name == "metrics.jsonl" and next(calls) == batch:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, rows)

    Log.write = write


def killed_before_done():
    """SIGKILL with data.jsonl written and done.json not."""
    import align.stages.sample

    original = align.stages.sample.write_json

    def write_json(path, value):
        if path.name == "done.json":
            os.kill(os.getpid(), signal.SIGKILL)
        original(path, value)

    align.stages.sample.write_json = write_json


def term(batch, rank=0):
    """SIGTERM to a process before that batch is drawn."""
    from align.rollout.hf import HfEngine

    original, calls = HfEngine.sample, iter(range(1, 10**9))

    def sample(self, requests):
        if next(calls) == batch and os.environ.get("RANK", "0") == str(rank):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, requests)

    HfEngine.sample = sample


def term_while_starting():
    """SIGTERM while the sampler starts; an engine that did start would fail."""
    import align.stages.sampling

    def build(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("started on")

    align.stages.sampling.build = build


def term_while_waiting(completion):
    """SIGTERM soon after a server was asked for that completion, which it does not answer."""
    from align.rollout.server import ServerEngine

    original, calls = ServerEngine._complete, iter(range(1, 10**9))

    async def complete(self, *args):
        if next(calls) == completion:
            threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return await original(self, *args)

    ServerEngine._complete = complete


def without_a_sampler():
    """No harm, unless it samples."""
    from align.rollout.hf import HfEngine

    HfEngine.sample = None
