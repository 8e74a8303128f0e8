"""The stages for preferences around tiny models: reward model, DPO and KTO, as `tiny` has GRPO's.

The rows are those of `preference_peer`, written as the words of its tokenizer, so that ours renders
them to the very token ids which TRL's trainer is given:

    pairs = make_pairs(6)
    stage = made(Dpo(**settings(folder), beta=0.3), pair_rows(pairs))
    step = tiny.backward(*moved(stage))     # loss and gradient, policy moved off the reference
"""

import shutil
from dataclasses import replace
from pathlib import Path

import alike
import preference_peer
import pytest
import runs
import tiny
import torch
import trl_peer
from datasets import Dataset
from transformers import AutoTokenizer

import data
from align.config import Compute, Optim
from align.order import at
from align.stages.modules import trained_module
from align.stages.training import STAGES

FIGURES = {"accuracy", "margin", "chosen", "rejected", "score", "kl", "value_loss", "return"}
BUDGETS = (1, 20, 40, 70, 10_000)  # one pair a pack, some, ..., everything in one


@pytest.fixture(name="cache", autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Where reference log-probs are kept: each test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "align" / "reference"


@pytest.fixture(name="folder", scope="module")
def tiny_folder(tmp_path_factory):
    """A tiny causal language model."""
    return trl_peer.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make_pairs(count, **options):
    """As in the peer, without those that a stage drops because both answers are alike."""
    drawn = preference_peer.make_pairs(count + 10, **options)
    return [pair for pair in drawn if pair.chosen != pair.rejected][:count]


def words(ids):
    """The text that `trl_peer`'s tokenizer reads as these ids, the end token left to the stage."""
    assert ids[-1:] != [trl_peer.PAD]
    return " ".join(f"w{token}" for token in ids if token != trl_peer.EOS)


def pair_rows(pairs):
    """Completions begin with the space that TRL's joined text needs."""
    rows = [
        {"prompt": words(pair.prompt)}
        | {name: " " + words(getattr(pair, name)) for name in ("chosen", "rejected")}
        | ({} if pair.margin is None else {"margin": pair.margin})
        for pair in pairs
    ]
    return Dataset.from_list(rows)


def judged_rows(rows):
    return Dataset.from_list(
        [
            {"prompt": words(row.prompt), "completion": words(row.completion), "label": row.label}
            for row in rows
        ]
    )


def settings(folder, *, token_budget=40, lr=1e-3, **more):
    """What a stage's configuration has here unless the test wants it otherwise."""
    return {
        "model": str(folder),
        "data": data.Arithmetic(),
        "batch": 64,
        "max_tokens": 100,
        "optim": Optim(lr=lr),
        "compute": Compute(precision="fp32", token_budget=token_budget),
    } | more


def made(config, rows, *, padded=False, out=None):
    """The real stage on a fresh copy of the model, as it is before `prepare`."""
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    module = trained_module(config, config.model, tokenizer, device=torch.device("cpu"))
    where = {"path": config.model, "padded": padded} | ({} if out is None else {"folder": out})
    return STAGES[type(config)](config, tiny.context(module, tokenizer, **where), rows)


def moved(stage, *, seed=1, by=0.05):
    """The stage and its first batch, its model moved away from the reference before."""
    stage.prepare()
    trl_peer.move(stage.context.model, seed=seed, by=by)
    return stage, stage.collect(1)


def check_layouts(stage):
    """Every budget, packed and padded, gives what one padded batch gives."""
    expected = laid_out(stage, padded=True, token_budget=10_000)
    assert torch.cat([g.flatten() for g in expected.gradient.values()]).norm() > 1e-3
    packs = set()
    for budget in BUDGETS:
        for padded in (False, True):
            same(laid_out(stage, padded=padded, token_budget=budget), expected)
            if not padded:
                packs.add(len(stage.collect(1).minibatches[0]))
    assert len(packs) >= 4  # the budgets did cut differently


def laid_out(stage, *, padded, token_budget):
    """The first step of a stage that was built for another layout."""
    stage.context.padded = padded
    compute = replace(stage.config.compute, token_budget=token_budget)
    stage.config = replace(stage.config, compute=compute)
    return tiny.backward(stage, stage.collect(1))


def ordered(rows, config):
    """Rows as the stage visits them in its first epoch."""
    return [rows[at(place, len(rows), config.seed)] for place in range(len(rows))]


def same(got, expected):
    """Two ways of computing one optimizer step."""
    assert got.loss == pytest.approx(expected.loss, rel=1e-5)
    assert trl_peer.relative_distance(got.gradient, expected.gradient) < 1e-5
    assert got.metrics == pytest.approx(expected.metrics, rel=1e-4, abs=1e-5)


PROCESSES = ["--recipe", "tiny-rlhf", "--model", "random:recipes/tiny_model", "--optim.eps", "1e-3"]


def check_two_processes(kind, tmp_path, *more, before=lambda out: None):
    """One process and two train the same model and log the same figures; returns the folders.

    `before` is called with each run folder. Reference log-probs that the first run kept are thrown
    away, or the second would not compute any.
    """
    stages = []
    for ranks in (1, 2):
        shutil.rmtree(Path(runs.environment()["XDG_CACHE_HOME"], "align", "reference"), True)
        out = tmp_path / str(ranks)
        before(out)
        args, log = [*PROCESSES, *more, "--out", out], tmp_path / f"log{ranks}"
        answer = runs.nursery().run(kind, args, log=log, ranks=ranks)
        assert answer["codes"] == [0] * ranks, log.read_text()
        stages.append(out / kind)
    one, two = stages
    alike.moved(one)
    alike.check_same(two, one)
    for mine, theirs in zip(*(runs.rows(each / "metrics.jsonl") for each in stages), strict=True):
        for name in FIGURES & mine.keys():
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), name
    return one, two
