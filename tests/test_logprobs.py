"""Both forms of the log-probabilities against the textbook, in value and gradient."""

import pytest
import torch
from torch import nn
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

import align.modeling.tiled
from align.modeling.logprobs import (
    CHUNK,
    chunked_logprobs,
    logit_transform,
    logprobs,
    tiled_logprobs,
    whole_logits,
)
from align.modeling.tiled import Transform

VOCABULARY = CHUNK + 1000  # two tiles, the second one short
OPTIONS = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "soft cap": {"softcap": 2.0},
    "scale": {"scale": 0.25},
    "all": {"temperature": 1.3, "softcap": 3.0, "scale": 2.0},
}


def textbook(hidden, head, target, transform, *, entropy_gradient=False, entropy=True):
    log_p = torch.log_softmax(whole_logits(hidden, head, transform), dim=-1)
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
    transform = Transform(**options)
    log_p, entropy = function(
        hidden, head, target, transform, entropy=True, entropy_gradient=gradient
    )
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(len(target), generator=draw)
    loss = (log_p * weights).sum()
    if gradient:
        loss = loss + entropy_weight * entropy.sum()
    loss.backward()
    return [log_p, entropy, hidden.grad, *(p.grad for p in head.parameters())]


FORMS = [tiled_logprobs, chunked_logprobs]
# Bytes of logits made together, and worked on together, by the tiled form: all 40 rows; 7; one.
CUTS = [(2**28, 2**22), (7 * 4 * VOCABULARY, 3 * 4 * VOCABULARY), (1, 1)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_both_forms_equal_the_textbook(name, bias, entropy_weight, form):
    check_equal(form, name=name, bias=bias, entropy_weight=entropy_weight)


@pytest.mark.parametrize("cut", CUTS[1:])
@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
@pytest.mark.parametrize("name", OPTIONS)
def test_however_the_logits_are_cut(name, entropy_weight, cut, monkeypatch):
    monkeypatch.setattr(align.modeling.tiled, "CHUNK_BYTES", cut[0])
    monkeypatch.setattr(align.modeling.tiled, "TILE_BYTES", cut[1])
    check_equal(tiled_logprobs, name=name, bias=True, entropy_weight=entropy_weight)


def check_equal(form, *, name, bias, entropy_weight):
    case = {"bias": bias, "entropy_weight": entropy_weight, "options": OPTIONS[name]}
    ours, expected = evaluated(form, **case), evaluated(textbook, **case)
    assert len(ours) == (5 if bias else 4)
    for got, want in zip(ours, expected, strict=True):
        assert got.dtype == torch.float32
        assert (got - want).norm() < 1e-5 * want.norm()


def test_the_logits_of_a_whole_pack_never_exist(monkeypatch):
    """Of 40 rows, chunks of at most 7: no product with the vocabulary has more."""
    monkeypatch.setattr(align.modeling.tiled, "CHUNK_BYTES", CUTS[1][0])
    made, product = [], align.modeling.tiled._logits
    monkeypatch.setattr(
        align.modeling.tiled, "_logits", lambda *a: made.append(product(*a)) or made[-1]
    )
    head, hidden, target = setting(bias=False)
    log_p, _ = logprobs(hidden, head, target, Transform())
    log_p.sum().backward()
    assert [len(logits) for logits in made] == 2 * [7, 7, 7, 7, 7, 5]


@pytest.mark.parametrize("sure", [0.5, 0.99, 0.9999])
def test_in_bfloat16_a_sure_token_s_gradient_is_not_rounded_away(sure):
    """d log p / d logit of the token itself is 1 - p; bfloat16 has no number between 0.996 and 1.
    Two logits, so the gradient by the hidden state is (1 - p) (w_target - w_other).
    """
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[1.0], [0.0]])
    odds = torch.tensor(sure / (1 - sure)).log().bfloat16()
    hidden = odds.float().view(1, 1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        log_p, _ = logprobs(hidden, head, torch.tensor([0]), Transform())
    log_p.sum().backward()
    assert hidden.grad.item() == pytest.approx(1 - log_p.exp().item(), rel=2**-8)


@pytest.mark.parametrize("cut", CUTS)
def test_without_entropy_the_log_probs_and_their_gradient_are_the_same(cut, monkeypatch):
    monkeypatch.setattr(align.modeling.tiled, "CHUNK_BYTES", cut[0])
    monkeypatch.setattr(align.modeling.tiled, "TILE_BYTES", cut[1])
    found = []
    for entropy in (True, False):
        head, hidden, target = setting(bias=False)
        log_p, spread = logprobs(hidden, head, target, Transform(), entropy=entropy)
        log_p.sum().backward()
        assert spread.shape == ((40,) if entropy else (0,))
        found.append((log_p, hidden.grad, head.weight.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("wanted", [False, True])
def test_entropy_is_differentiable_only_where_asked(wanted):
    head, hidden, target = setting(bias=False)
    log_p, entropy = logprobs(hidden, head, target, Transform(), entropy_gradient=wanted)
    assert log_p.requires_grad
    assert entropy.requires_grad == wanted


def test_a_frozen_head_gets_no_gradient_and_the_trunk_the_same():
    found = []
    for frozen in (False, True):
        head, hidden, target = setting(bias=True)
        head.requires_grad_(not frozen)
        logprobs(hidden, head, target, Transform())[0].sum().backward()
        found.append(hidden.grad)
        assert (head.weight.grad is None) == (head.bias.grad is None) == frozen
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_without_a_backward_pass_to_come_the_logits_are_left_as_they_are(monkeypatch):
    made, product = [], align.modeling.tiled._logits
    monkeypatch.setattr(
        align.modeling.tiled, "_logits", lambda *a: made.append(product(*a)) or made[-1]
    )
    head, hidden, target = setting(bias=False)
    with torch.no_grad():
        logprobs(hidden, head, target, Transform())
        torch.testing.assert_close(made[0], head(hidden))
    logprobs(hidden, head, target, Transform())
    assert not torch.allclose(made[1], made[0])  # probabilities by now


def test_written_out():
    """Logits 0 and ln 3: p = 1/4, 3/4; entropy ln 4 - 3/4 ln 3 = 0.562335. At temperature 0.5 the
    odds are squared: 1/10, 9/10.
    """
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[0.0], [1.0986123]])
    hidden, target = torch.ones(2, 1), torch.tensor([0, 1])
    log_p, entropy = logprobs(hidden, head, target, Transform())
    torch.testing.assert_close(log_p.exp(), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(entropy, torch.tensor([0.5623351, 0.5623351]))
    sharp, _ = logprobs(hidden, head, target, Transform(temperature=0.5))
    torch.testing.assert_close(sharp.exp(), torch.tensor([0.1, 0.9]))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_score(form):
    """A pack of masked tokens alone: empty results that still take a backward."""
    head, hidden, target = setting(bias=False)
    transform = Transform()
    log_p, entropy = form(
        hidden[:0], head, target[:0], transform, entropy=True, entropy_gradient=False
    )
    assert log_p.shape == entropy.shape == (0,)
    log_p.sum().backward()
    assert head.weight.grad.count_nonzero() == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(), Transform()),
        (CohereConfig(logit_scale=0.0625), Transform(scale=0.0625)),
        (GraniteConfig(logits_scaling=8.0), Transform(scale=0.125)),
        (Gemma2Config(final_logit_softcapping=30.0), Transform(softcap=30.0)),
    ],
    ids=["llama", "cohere", "granite", "gemma2"],
)
def test_logit_transform_of_an_architecture(config, expected):
    assert logit_transform(config) == expected
