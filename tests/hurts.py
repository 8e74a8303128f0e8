"""Things that happen to a run at a chosen place, set up inside its process before it starts."""

import dataclasses
import errno
import itertools
import json
import os
import resource
import signal
import time
from pathlib import Path

import transformers
from safetensors import SafetensorError

import align.checkpoint
import align.files.folder
import align.models
import align.stages.rolled
import rewards
from align.loop import Loop
from align.rollout.hf import HfEngine
from align.training.update import Update


def _strike(number=signal.SIGKILL):
    os.kill(os.getpid(), number)


def _before(owner, name, times, action):
    """Run `action` before call number `times` (from 1) of `owner.name`."""
    original, calls = getattr(owner, name), iter(range(1, 10**9))

    def wrapped(*args, **kwargs):
        if next(calls) == times:
            action(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def record_judged(file):
    """No harm: write down what the accuracy reward is asked, a row (text, solution)."""
    original = rewards.Accuracy.score

    def score(self, completions, *, solution, **columns):
        with Path(file).open("a") as out:
            for completion, gold in zip(completions, solution, strict=True):
                text = completion if isinstance(completion, str) else completion[-1]["content"]
                out.write(json.dumps([text, gold]) + "\n")
        return original(self, completions, solution=solution, **columns)

    rewards.Accuracy.score = score


def while_writing(save):
    """SIGKILL with half of checkpoint number `save` on disk."""
    original = align.checkpoint.write

    def half(path, pieces):
        original(path, pieces)
        os.truncate(path, path.stat().st_size // 2)
        _strike()

    _before(align.checkpoint, "write", save, half)


def before_rename(save):
    """SIGKILL with checkpoint number `save` complete, under its temporary name."""
    original, calls = Path.rename, iter(range(1, 10**9))

    def rename(self, target):
        if Path(target).name.startswith("step-") and next(calls) == save:
            _strike()
        return original(self, target)

    Path.rename = rename


def after_rename(save):
    """SIGKILL with the checkpoint in place and the old one not removed yet."""
    _before(align.checkpoint, "_sync_folder", save, lambda *_: _strike())


def between_minibatches(step):
    """SIGKILL before optimizer step number `step`."""
    _before(Update, "step", step, lambda *_: _strike())


def after_export():
    """SIGKILL with the model written and done.json not."""
    original = align.files.folder.write_json

    def write_json(path, value):
        if path.name == "done.json":
            _strike()
        original(path, value)

    align.files.folder.write_json = write_json


def during_export():
    """SIGKILL with the model half written."""
    original = align.models.save

    def save(model, tokenizer, folder):
        original(model, tokenizer, folder)
        (folder / "tokenizer.json").unlink()
        _strike()

    align.models.save = save


def term_while_sampling(call, marker):
    """SIGTERM inside sampling call number `call`; `marker` is written if sampling goes on."""

    def action(*_):
        _strike(signal.SIGTERM)
        Path(marker).write_text("sampled on")

    _before(HfEngine, "sample", call, action)


def term_in_minibatch(step):
    """SIGTERM before optimizer step number `step`."""
    _before(Update, "step", step, lambda *_: _strike(signal.SIGTERM))


def term_on_rank_1(step):
    """SIGTERM to the second of several processes, before optimizer step number `step`."""
    if os.environ["RANK"] == "1":
        term_in_minibatch(step)


def record_scored(folder):
    """No harm: each process writes down which data-set rows' completions it scores."""
    original = align.stages.rolled.Roller.score

    def score(self, step, groups):
        original(self, step, groups)
        with (Path(folder) / os.environ.get("RANK", "0")).open("a") as out:
            out.write(json.dumps([step, [group.row for group in groups]]) + "\n")

    align.stages.rolled.Roller.score = score


def dead_prompts(rows):
    """No harm: every completion of these data-set rows counts as wrong, the others' do not all."""
    original = align.stages.rolled.Roller.score

    def score(self, step, groups):
        original(self, step, groups)
        for group in groups:
            right = [0.0 if group.row in rows else float(i % 2) for i in range(len(group.scores))]
            group.scores = [
                dataclasses.replace(kept, correct=value)
                for kept, value in zip(group.scores, right, strict=True)
            ]

    align.stages.rolled.Roller.score = score


def equal_rewards():
    """No harm: every completion earns the same."""
    original = align.stages.rolled.Roller.score

    def score(self, step, groups):
        original(self, step, groups)
        for group in groups:
            group.scores = [dataclasses.replace(kept, value=0.25) for kept in group.scores]

    align.stages.rolled.Roller.score = score


def _refusing(path, error):
    """A file that takes half of what is written to it, and no more."""

    class Refusing:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *about):
            self.file.close()

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            raise OSError(error, os.strerror(error), str(path))

    return Refusing


def refused_file(name, error=errno.ENOSPC):
    """A disk that has no room for any file of that name, whatever is put before and behind it."""
    original = Path.open

    def opened(self, mode="r", *args, **options):
        file = original(self, mode, *args, **options)
        refused = name in self.name and set(mode) & set("wa")
        return _refusing(self, error)(file) if refused else file

    Path.open = opened


def small_files(size):
    """The kernel lets no file grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def no_room_for_the_model():
    """A disk that is full when the model is exported, in safetensors' own words."""
    original = transformers.modeling_utils.safe_save_file

    def save(tensors, path, **options):
        original(tensors, path, **options)
        os.truncate(path, os.path.getsize(path) // 2)
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    transformers.modeling_utils.safe_save_file = save


def jumping_clock():
    """Each look at the clock on the wall is hours or years before or after the last."""
    jumps = itertools.cycle((-3e8, 7200.0, -7200.0, 1e9, 0.0, -5.0))
    real = time.time
    time.time = lambda: real() + next(jumps)


def interrupt(times, owner="sampling"):
    """Ctrl-C, before call number `times` of sampling, an update, or a checkpoint's writing; twice
    where the sampler is closed.
    """
    where = {
        "sampling": (HfEngine, "sample"),
        "update": (Update, "step"),
        "checkpoint": (align.checkpoint, "fingerprint"),
        "closing": (HfEngine, "sample"),
    }[owner]
    _before(*where, times, lambda *_: _strike(signal.SIGINT))
    if owner == "closing":
        _before(HfEngine, "close", 1, lambda *_: _strike(signal.SIGINT))


def while_caching():
    """SIGKILL with the reference's log-probs written and not yet in their place."""
    original = Path.replace

    def replace(self, target):
        if self.parent.name == "reference":
            _strike()
        return original(self, target)

    Path.replace = replace


def between_rollout_and_updates(step):
    """SIGKILL with step number `step`'s rollout collected, before its first update."""
    _before(Loop, "_train", step, lambda *_: _strike())
