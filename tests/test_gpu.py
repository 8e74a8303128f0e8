"""On a GPU: FlexAttention's packs, a real shortage of memory, the chunked head, a whole run."""

import os
import random
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import runs
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from align.config import Optim
from align.files.pieces import Pieces, write
from align.modeling.logprobs import logprobs
from align.modeling.policy import Policy
from align.modeling.tiled import Transform
from align.models import load_causal_lm
from align.packing import Completion, Group, pack
from align.training.backward import Backward
from align.training.optim import adamw
from align.training.state import captured, put_back

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A folder with random weights in Qwen2.5's shape, 14 heads of 64 and 2 of keys, 4 layers."""
    config = Qwen2Config(
        vocab_size=4096, hidden_size=896, intermediate_size=1024, num_hidden_layers=4,
        num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=4096,
        initializer_range=0.05, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("qwen")
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def ragged(*, groups=3, samples=4, prompt=300, completion=200, seed=0):
    draw = random.Random(seed)

    def ids(most):
        return [draw.randint(3, 4000) for _ in range(draw.randint(most // 4, most))]

    return [
        Group(
            prompt=ids(prompt),
            completions=[
                Completion(ids=(own := ids(completion)), columns={
                    "weight": [draw.gauss(0, 1) for _ in own], "name": float(10 * g + i)
                })
                for i in range(samples)
            ],
        )
        for g in range(groups)
    ]  # fmt: skip


class Weighted:
    """A stage whose loss is added up over tokens."""

    def __init__(self, module):
        self.module = module

    def loss(self, one):
        return (self.module(one)[0] * one.columns["weight"]).sum(), {}


def figures(module, packs):
    """Log-probs by completion, gradient by name."""
    module.zero_grad()
    found = {}
    for one in packs:
        one = one.to("cuda")
        out = module(one)[0]
        (out * one.columns["weight"]).sum().backward()
        split = out.detach().split(one.lengths().tolist())
        found |= dict(zip(one.per_sequence("name").int().tolist(), split, strict=True))
    gradient = {name: p.grad.clone() for name, p in module.named_parameters()}
    return torch.cat([found[name] for name in sorted(found)]), gradient


def test_packed_is_padded(qwen):
    """In float32 the same; in bfloat16 as near to that as the padded layout's numbers are."""
    model, groups = load_causal_lm(str(qwen), device="cuda"), ragged()
    layouts = {
        "packed": pack(groups, token_budget=10_000),
        "padded": pack(groups, token_budget=4_000, padded=True),
    }
    exact, gradient = figures(Policy(model), layouts["padded"])
    size = _norm(gradient)
    found, off = figures(Policy(model), layouts["packed"])
    assert (found - exact).norm() < 1e-4 * exact.norm()
    assert _norm(_difference(off, gradient)) < 1e-4 * size
    gaps = {}
    for name, packs in layouts.items():
        found, off = figures(Policy(model, autocast=torch.bfloat16), packs)
        gaps[name] = (found - exact).norm(), _norm(_difference(off, gradient))
    assert gaps["padded"][1] < 0.1 * size
    for mine, theirs in zip(*gaps.values(), strict=True):
        assert mine < 1.5 * theirs


def _norm(gradient):
    return torch.stack([value.norm() for value in gradient.values()]).norm()


def _difference(one, other):
    return {name: value - other[name] for name, value in one.items()}


def test_packs_of_many_lengths_take_no_matrix_of_scores(qwen):
    """Past its limit of recompilations the compiler would fall back to [heads, T, T]."""
    module = Policy(load_causal_lm(str(qwen), device="cuda"), autocast=torch.bfloat16)
    for samples in range(1, 17):
        (one,) = pack(ragged(groups=2, samples=samples, seed=samples), token_budget=100_000)
        figures(module, [one])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    (long,) = pack(ragged(groups=8, samples=16, prompt=1000), token_budget=100_000)
    with torch.no_grad():
        module(long.to("cuda"), entropy=False)
    scores = 14 * long.tokens**2 * 2
    assert torch.cuda.max_memory_allocated() - before < scores / 4


def test_a_pack_that_does_not_fit_is_halved(qwen):
    """The allocator may take two thirds of what the whole pack needs."""
    module = Policy(load_causal_lm(str(qwen), device="cuda"))
    accelerator: Any = SimpleNamespace(  # the process's own is the CPU's
        num_processes=1,
        process_index=0,
        device=torch.device("cuda"),
        no_sync=lambda _: nullcontext(),
        backward=lambda loss: loss.backward(),
    )
    (one,) = pack(ragged(groups=16, samples=8), token_budget=1_000_000)
    small = Backward(Weighted(module), module=module, accelerator=accelerator)
    small.limit = one.tokens // 4
    base = _peak(lambda: None)
    quarter = _peak(lambda: small([one], []))
    expected = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    whole = Backward(Weighted(module), module=module, accelerator=accelerator)
    most = _peak(lambda: whole([one], []))
    assert not whole.tried and most > 2 * quarter - base
    module.zero_grad()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((base + (most - base) * 0.66) / total)
    try:
        short = Backward(Weighted(module), module=module, accelerator=accelerator)
        short([one], [])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert short.tried and short.limit < one.tokens
    found = {name: p.grad for name, p in module.named_parameters()}
    assert _norm(_difference(found, expected)) < 1e-4 * _norm(expected)


def _peak(action):
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    action()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def test_the_head_on_a_gpu_is_the_textbooks():
    """Values, entropy and gradients, of the whole matrix of logits on the CPU, in float32."""
    torch.manual_seed(0)
    hidden, target = torch.randn(300, 64), torch.randint(0, 20_000, (300,))
    head, weight = torch.nn.Linear(64, 20_000, bias=False), torch.randn(300)
    states = hidden.clone().requires_grad_()
    log_p = (head(states) / 0.7).log_softmax(-1)
    expected = log_p.gather(1, target[:, None])[:, 0]
    (expected * weight).sum().backward()

    on_gpu = hidden.to("cuda").requires_grad_()
    layer = torch.nn.Linear(64, 20_000, bias=False, device="cuda")
    layer.load_state_dict(head.state_dict())
    chosen, entropy = logprobs(on_gpu, layer, target.to("cuda"), Transform(temperature=0.7))
    (chosen * weight.to("cuda")).sum().backward()
    torch.testing.assert_close(chosen.cpu(), expected, rtol=0, atol=1e-4)
    spread = -(log_p.exp() * log_p).sum(-1)
    torch.testing.assert_close(entropy.cpu(), spread, rtol=0, atol=1e-4)
    for found, wanted in ((on_gpu.grad, states.grad), (layer.weight.grad, head.weight.grad)):
        assert (found.cpu() - wanted).norm() < 1e-5 * wanted.norm()


def test_training_goes_on_from_a_checkpoint(tmp_path):
    """The optimizer's fused kernel wants its count of steps on the GPU."""

    def made():
        torch.manual_seed(0)
        module = torch.nn.Linear(8, 4).to("cuda")
        return module, adamw(module, Optim(lr=1e-2))

    def step(module, optimizer):
        optimizer.zero_grad()
        module(torch.ones(3, 8, device="cuda")).square().sum().backward()
        optimizer.step()

    whole, resumed, file = made(), made(), tmp_path / "state.safetensors"
    step(*whole)
    write(file, captured(*whole, main=True))
    step(*whole)
    put_back(Pieces([file]), *resumed)
    step(*resumed)
    assert torch.equal(resumed[0].weight, whole[0].weight)
    assert not torch.equal(resumed[0].weight, made()[0].weight)


@pytest.mark.slow
def test_a_run_on_a_gpu(tmp_path):
    """Samples with `generate` and trains packs; one that must be halved is in the tests above."""
    out = tmp_path / "out"
    flags = runs.grpo(out, "--steps", "2", "--engine.kind", "hf", "--compute.precision", "bf16")
    environment = runs.environment() | {"ACCELERATE_USE_CPU": "false"}
    command = [sys.executable, runs.REPOSITORY / "scripts" / "grpo.py", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=os.getcwd())
    assert done.returncode == 0, done.stderr
    assert "padded batches" not in done.stdout
    assert len(runs.rows(out / "grpo" / "metrics.jsonl")) == 2
    assert runs.finished(out / "grpo")
