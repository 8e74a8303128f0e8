"""Both forms of the log-probabilities against the textbook, in value and gradient."""

import pytest
import torch
from torch import nn
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

import align.logprobs
from align.logprobs import CHUNK, chunked_logprobs, direct_logprobs, logit_transform, logprobs

VOCABULARY = CHUNK + 1000  # two tiles, the second one short
PLAIN = {"entropy": True, "temperature": 1.0, "softcap": None, "scale": 1.0}
OPTIONS = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "soft cap": {"softcap": 2.0},
    "scale": {"scale": 0.25},
    "all": {"temperature": 1.3, "softcap": 3.0, "scale": 2.0},
}


def textbook(hidden, head, target, *, temperature, softcap, scale, entropy_gradient, entropy=True):
    logits = head(hidden) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    return log_p[range(len(target)), target], torch.special.entr(log_p.exp()).sum(-1)


def setting(bias):
    torch.manual_seed(0)
    head = nn.Linear(16, VOCABULARY, bias=bias)
    nn.init.normal_(head.weight, std=0.5)
    hidden = torch.randn(40, 16, requires_grad=True)
    # Targets in both tiles, the border included.
    target = torch.randint(0, VOCABULARY, (40,))
    target[:4] = torch.tensor([0, CHUNK - 1, CHUNK, VOCABULARY - 1])
    return head, hidden, target


def evaluated(function, *, bias, entropy_weight, options):
    """Values, and the gradient of a weighted sum of both outputs by every input."""
    head, hidden, target = setting(bias)
    gradient = entropy_weight != 0
    log_p, entropy = function(hidden, head, target, entropy_gradient=gradient, **(PLAIN | options))
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(len(target), generator=draw)
    loss = (log_p * weights).sum()
    if gradient:
        loss = loss + entropy_weight * entropy.sum()
    loss.backward()
    return [log_p, entropy, hidden.grad, *(p.grad for p in head.parameters())]


@pytest.mark.parametrize("form", [direct_logprobs, chunked_logprobs])
@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_both_forms_equal_the_textbook(name, bias, entropy_weight, form):
    case = {"bias": bias, "entropy_weight": entropy_weight, "options": OPTIONS[name]}
    ours, expected = evaluated(form, **case), evaluated(textbook, **case)
    assert len(ours) == (5 if bias else 4)
    for got, want in zip(ours, expected, strict=True):
        assert got.dtype == torch.float32
        assert (got - want).norm() < 1e-5 * want.norm()


@pytest.mark.parametrize(
    ("limit", "form"), [(4 * 40 * VOCABULARY, "direct"), (4 * 40 * VOCABULARY - 1, "chunked")]
)
def test_the_matrix_is_kept_only_while_it_is_small(limit, form, monkeypatch):
    """40 tokens by the vocabulary in float32 are 4 * 40 * 17,384 bytes."""
    used = []
    for name in ("direct", "chunked"):
        original = getattr(align.logprobs, f"{name}_logprobs")

        def spy(*args, name=name, original=original, **options):
            used.append(name)
            return original(*args, **options)

        monkeypatch.setattr(align.logprobs, f"{name}_logprobs", spy)
    monkeypatch.setattr(align.logprobs, "DIRECT_BYTES", limit)
    head, hidden, target = setting(bias=False)
    result = logprobs(hidden, head, target, temperature=0.7, scale=0.5, softcap=4.0)
    options = {"temperature": 0.7, "scale": 0.5, "softcap": 4.0, "entropy_gradient": False}
    for got, want in zip(result, textbook(hidden, head, target, **options), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert used == [form]


@pytest.mark.parametrize("limit", [0, 2**29])
def test_without_entropy_the_log_probs_and_their_gradient_are_the_same(limit, monkeypatch):
    monkeypatch.setattr(align.logprobs, "DIRECT_BYTES", limit)
    found = []
    for entropy in (True, False):
        head, hidden, target = setting(bias=False)
        log_p, spread = logprobs(hidden, head, target, entropy=entropy)
        log_p.sum().backward()
        assert spread.shape == ((40,) if entropy else (0,))
        found.append((log_p, hidden.grad, head.weight.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("limit", [0, 2**29])
@pytest.mark.parametrize("wanted", [False, True])
def test_entropy_is_differentiable_only_where_asked(wanted, limit, monkeypatch):
    monkeypatch.setattr(align.logprobs, "DIRECT_BYTES", limit)
    head, hidden, target = setting(bias=False)
    log_p, entropy = logprobs(hidden, head, target, entropy_gradient=wanted)
    assert log_p.requires_grad
    assert entropy.requires_grad == wanted


def test_written_out():
    """Logits 0 and ln 3: p = 1/4, 3/4; entropy ln 4 - 3/4 ln 3 = 0.562335. At temperature 0.5 the
    odds are squared: 1/10, 9/10.
    """
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[0.0], [1.0986123]])
    hidden, target = torch.ones(2, 1), torch.tensor([0, 1])
    log_p, entropy = logprobs(hidden, head, target)
    torch.testing.assert_close(log_p.exp(), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(entropy, torch.tensor([0.5623351, 0.5623351]))
    sharp, _ = logprobs(hidden, head, target, temperature=0.5)
    torch.testing.assert_close(sharp.exp(), torch.tensor([0.1, 0.9]))


@pytest.mark.parametrize("form", [direct_logprobs, chunked_logprobs])
def test_nothing_to_score(form):
    """A pack of masked tokens alone: empty results that still take a backward."""
    head, hidden, target = setting(bias=False)
    log_p, entropy = form(hidden[:0], head, target[:0], entropy_gradient=False, **PLAIN)
    assert log_p.shape == entropy.shape == (0,)
    log_p.sum().backward()
    assert head.weight.grad.count_nonzero() == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(), (1.0, None)),
        (CohereConfig(logit_scale=0.0625), (0.0625, None)),
        (GraniteConfig(logits_scaling=8.0), (0.125, None)),
        (Gemma2Config(final_logit_softcapping=30.0), (1.0, 30.0)),
    ],
    ids=["llama", "cohere", "granite", "gemma2"],
)
def test_logit_transform_of_an_architecture(config, expected):
    assert logit_transform(config) == expected
