"""A step that runs out of memory begins again with halves, as if it had known before."""

import json
import random
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import runs
import tiny
import torch
from safetensors.torch import load_file
from test_halving import check_same, policy, random_groups, weighted

from align.config import Sampling
from align.packing import pack
from align.rollout import EngineError, Request
from align.rollout.vllm import VllmEngine
from align.training.backward import Backward
from align.training.halving import halves
from align.training.shortage import TooLargeError, is_shortage, named

CPU_SAID = (
    "[enforce fail at alloc_cpu.cpp:126] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
)
LARGE = ("--compute.token-budget", "100000")


class Weighted:
    """A stage: the loss above, with a count beside it."""

    def __init__(self, module):
        self.module = module

    def loss(self, one):
        value, logprobs = weighted(self.module, one)
        return value, {"logprob": logprobs.detach().sum()}


def undisturbed(module, packs):
    """Sums and gradient of a step that nothing happens to."""
    accelerator = tiny.context(module, None).accelerator
    module.zero_grad()
    sums = Backward(Weighted(module), module=module, accelerator=accelerator)(packs, [])
    return sums, {name: p.grad.clone() for name, p in module.named_parameters()}


def failing(module, when, error):
    """Raise in the middle of the backward pass, after some of the gradient is there, for every
    forward pass for whose pack `when` is true.
    """
    asked = []
    layer = module.model.model.layers[0]

    def see(module, args):
        asked.append(when(args[0]))

    def fail(*_):
        # The second layer's gradients and the head's have been added already.
        assert module.model.model.layers[1].mlp.up_proj.weight.grad is not None
        if asked[-1]:
            raise error

    return module.register_forward_pre_hook(see), layer.register_full_backward_hook(fail)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_SAID), MemoryError()]
)
@pytest.mark.parametrize("padded", [False, True])
def test_a_step_begins_again_with_halves(padded, error, caplog):
    """The second of two packs fails in mid-backward: the first one's gradient counts once."""
    module = policy()
    packs = pack(random_groups(3, count=8), token_budget=120, padded=padded)
    assert len(packs) > 1
    sums, gradient = undisturbed(module, packs)
    module.zero_grad()
    backward = Backward(
        Weighted(module), module=module, accelerator=tiny.context(module, None).accelerator
    )
    once = iter([False, True])
    hooks = failing(module, lambda one: next(once, False), error)
    found = backward(packs, [])
    assert found.keys() == sums.keys()
    for name, value in sums.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-5)
    check_same((0.0, {n: p.grad for n, p in module.named_parameters()}), (0.0, gradient))
    assert backward.tried == [packs[1].tokens]
    assert backward.limit == max(half.tokens for half in halves(packs[1]))
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"a pack of {packs[1].tokens} tokens" in said
    assert f"--compute.token-budget {backward.limit}" in said
    for hook in hooks:
        hook.remove()


def test_the_limit_holds_for_the_steps_that_follow(caplog):
    """Packs of more than 50 tokens fail: two rounds of halving in the first step, none later."""
    module = policy()
    packs = pack(random_groups(4, count=9), token_budget=150)
    sums, gradient = undisturbed(module, packs)
    backward = Backward(
        Weighted(module), module=module, accelerator=tiny.context(module, None).accelerator
    )
    failing(module, lambda one: one.tokens > 50, torch.OutOfMemoryError("CUDA out of memory."))
    for _ in range(2):
        module.zero_grad()
        found = backward(packs, [])
        assert found["tokens"] == sums["tokens"]
        check_same((0.0, {n: p.grad for n, p in module.named_parameters()}), (0.0, gradient))
    assert backward.limit <= 50
    assert len(backward.tried) == len(caplog.records) >= 2
    assert backward.tried == sorted(backward.tried, reverse=True)


@pytest.mark.parametrize(
    ("whole", "what"), [(False, "its completion"), (True, "2 that go together")]
)
def test_what_cannot_be_cut_is_named(whole, what):
    module = policy()
    (one,) = pack(random_groups(5, count=3, most=0), token_budget=1000, whole=whole)
    backward = Backward(
        Weighted(module), module=module, accelerator=tiny.context(module, None).accelerator
    )
    failing(module, lambda one: True, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(TooLargeError) as caught:
        backward([one], [])
    said = str(caught.value)
    assert what in said
    assert f"packs of {one.tokens}" in said
    for flag in ("gradient-checkpointing", "precision bf16", "--max-tokens", "--sampling.max-tok"):
        assert flag in said
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), torch.AcceleratorError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), EngineError),
        (ValueError("no such head"), EngineError),
    ],
)
def test_what_is_no_fault_of_the_models_is_not_put_down_to_it(error, shown, monkeypatch):
    """By vLLM, of which nothing else is needed here."""

    def generate(*_, **__):
        raise error

    engine = VllmEngine.__new__(VllmEngine)
    engine.sampling, engine.stop, engine.asleep = Sampling(), [0], False
    engine.llm = SimpleNamespace(generate=generate)
    named_so = SimpleNamespace(SamplingParams=dict, TokensPrompt=dict)
    monkeypatch.setitem(sys.modules, "vllm", named_so)
    with pytest.raises(shown, match=str(error)) as caught:
        engine.sample([Request(prompt=[1], seeds=[1])])
    assert is_shortage(caught.value) == is_shortage(error)  # and is named as one


def test_other_errors_are_not_swallowed():
    assert not is_shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_shortage(ValueError(CPU_SAID))
    module = policy()
    packs = pack(random_groups(3, count=8), token_budget=120)
    backward = Backward(
        Weighted(module), module=module, accelerator=tiny.context(module, None).accelerator
    )
    failing(module, lambda one: True, RuntimeError("element 0 does not require grad"))
    with pytest.raises(RuntimeError, match="element 0"):
        backward(packs, [])


def test_dropout_falls_as_in_a_step_that_knew_the_limit():
    """The random state at the second beginning is that of the first."""
    module = policy()
    dropout = torch.nn.Dropout(0.5)
    module.model.model.layers[0].mlp.register_forward_hook(lambda *args: dropout(args[-1]))
    packs = pack(random_groups(3, count=8), token_budget=120)
    accelerator = tiny.context(module, None).accelerator
    failed = Backward(Weighted(module), module=module, accelerator=accelerator)
    once = iter([True])
    hooks = failing(module, lambda one: next(once, False), MemoryError())
    knew = Backward(Weighted(module), module=module, accelerator=accelerator)
    losses = []
    for backward in (failed, knew):
        torch.manual_seed(5)
        module.zero_grad()
        knew.limit = failed.limit
        losses.append(backward(packs, [])["loss"].item())
    assert failed.tried and not knew.tried
    assert losses[0] == losses[1]
    assert losses[0] != undisturbed(module, packs)[0]["loss"].item()
    for hook in hooks:
        hook.remove()


@pytest.fixture
def wide(tmp_path):
    """A model whose activations weigh much more than its weights."""
    folder = tmp_path / "wide"
    shutil.copytree(tiny.CHAT_FOLDER, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 8, "intermediate_size": 256}
    (folder / "config.json").write_text(json.dumps(config))
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh ", k=250)) for _ in range(80)]
    rows = [{"prompt": a[:40], "completion": b} for a, b in pairwise(words)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return ["--model", f"random:{folder}", "--data", tmp_path / "rows.jsonl"]


def test_a_real_shortage_of_memory(tmp_path, wide):
    """A run that may take so much memory and no more: same loss, gradient and norms; and of a
    single completion that does not fit it says so.
    """
    flags = "--recipe tiny --batch 20 --epochs 0.5 --max-tokens 400 --optim.eps 1e-3"
    flags = [*flags.split(), *wide, *LARGE, "--compute.precision", "fp32"]
    codes = {}
    for name, spare in (("free", 0), ("short", 220), ("none", 3)):
        out, log = tmp_path / name, tmp_path / f"{name}.log"
        hurt = ["scarce.little_memory", spare, str(tmp_path / f"{name}.safetensors")]
        answer = runs.nursery().run("sft", [*flags, "--out", out], log=log, hurt=hurt)
        codes[name] = answer["codes"]
    logs = {name: (tmp_path / f"{name}.log").read_text() for name in codes}
    assert codes["free"] == codes["short"] == [0], logs["short"]
    tried, limit = json.loads((tmp_path / "short.json").read_text())
    assert json.loads((tmp_path / "free.json").read_text()) == [[], None]
    assert len(tried) >= 1
    assert logs["short"].count("does not fit in memory") >= len(tried)
    assert f"--compute.token-budget {limit}" in logs["short"]
    free, short = (load_file(tmp_path / f"{name}.safetensors") for name in ("free", "short"))
    for name, gradient in free.items():
        assert (short[name] - gradient).abs().max() < 1e-5 * gradient.abs().max(), name
    rows = [runs.rows(tmp_path / name / "sft" / "metrics.jsonl") for name in ("free", "short")]
    for expected, found in zip(*rows, strict=True):
        for figure in ("loss", "grad_norm", "tokens", "entropy"):
            assert found[figure] == pytest.approx(expected[figure], rel=1e-5), figure
    assert codes["none"] != [0]
    assert "--compute.gradient-checkpointing" in logs["none"]


TWO = "--recipe tiny --model random:recipes/tiny_model --optim.eps 1e-3 --batch 16"
MANY, ONE = "160", "100000"  # token budgets: several packs a process, or a single one


def two(out, budget, number, where="forward"):
    """Two processes, of which the second runs short in its pack `number`: exit codes, logs."""
    flags = [*TWO.split(), "--compute.token-budget", budget, "--checkpoints.every", "1"]
    hurt, log = ["scarce.fail_once", 1, number, where], out.with_name(f"{out.name}.log")
    answer = runs.nursery().run("sft", [*flags, "--out", out], log=log, ranks=2, hurt=hurt)
    return answer["codes"], [file.read_text() for file in (log, Path(f"{log}.1"))]


@pytest.fixture(scope="module")
def enough(tmp_path_factory):
    """The stage of two processes that never run short."""
    out = tmp_path_factory.mktemp("enough") / "run"
    codes, logs = two(out, MANY, 10**6)
    assert codes == [0, 0], logs
    return out / "sft"


@pytest.mark.parametrize(
    ("budget", "number", "where"),
    [(MANY, 1, "forward"), (MANY, 2, "backward"), (ONE, 1, "backward")],
)
def test_one_of_two_processes_runs_short(budget, number, where, enough, tmp_path):
    """In the first forward pass, in which the processes exchange buffers; where gradients of other
    packs have been added; and in a process's only pack. The limit is in the checkpoint, though the
    process that writes it never ran short.
    """
    codes, logs = two(tmp_path / "run", budget, number, where)
    assert codes == [0, 0], logs
    (said,) = re.findall(r"rank 1: a pack of .* packs have at most (\d+) from here on", logs[1])
    assert "a pack of" not in logs[0]
    stage = tmp_path / "run" / "sft"
    newest = stage / "checkpoints" / runs.checkpoints(stage)[-1]
    assert json.loads((newest / "manifest.json").read_text())["pack_limit"] == int(said)
    rows = [runs.rows(one / "metrics.jsonl") for one in (enough, stage)]
    assert len(rows[0]) > 1
    for expected, found in zip(*rows, strict=True):
        for figure in ("loss", "grad_norm", "tokens"):
            assert found[figure] == pytest.approx(expected[figure], rel=1e-5), figure
    expected, found = (load_file(one / "model" / "model.safetensors") for one in (enough, stage))
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() < 1e-5 * weight.abs().max(), name


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_in_the_exchange_of_gradients_it_is_an_error(where, tmp_path):
    """It says what to do, and the other rank does not wait for ever."""
    codes, logs = two(tmp_path / "run", ONE, 2, where)
    assert 0 not in codes and -9 not in codes
    assert "rank 1: memory ran out while gradients were exchanged" in logs[1]
    assert "--compute.gradient-checkpointing" in logs[1]


def test_a_shortage_in_passes_without_gradient_is_named(tmp_path):
    args, log = runs.grpo(tmp_path / "run", "--compute.token-budget", "600"), tmp_path / "log"
    answer = runs.nursery().run("grpo", args, log=log, hurt=["scarce.fail_filling"])
    said = log.read_text()
    assert answer["codes"] == [2] and "Traceback" not in said, said
    assert "error: memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB.)" in said
    assert "--resume with --compute.token-budget 300" in said
    assert "--compute.gradient-checkpointing" in said


def test_what_is_not_a_shortage_passes_unchanged():
    for error in (ValueError(CPU_SAID), RuntimeError("shapes cannot be multiplied")):
        with pytest.raises(type(error)) as caught, named(token_budget=600):
            raise error
        assert caught.value is error
