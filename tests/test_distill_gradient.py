"""One distillation batch has one gradient, that of plain models sequence by sequence, however it is
laid out and chunked.
"""

from unittest.mock import Mock

import distill_stage
import pytest
import tiny
import torch
import trl_peer
from transformers import LlamaConfig

from align.modeling.policy import Policy
from align.modeling.student import CHUNK_BYTES, Student
from align.objectives.distill import forward_kl
from align.order import at
from align.packing import Completion, Group, pack

BUDGETS = (2, 20, 40, 80, 20_000)
CASES = {
    "forward": {"beta": 0.0},
    "reverse": {"beta": 1.0, "temperature": 0.7},
    "jensen-shannon": {"beta": 0.3, "temperature": 1.5},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return distill_stage.folders(tmp_path_factory.mktemp("models"))


def sequences(stage, made):
    """Those of step 1: the student's where it samples, else the row's own with its end token."""
    kept, found = stage.prompts.kept, []
    answers = distill_stage.prepared(made).answers
    for place in range(stage.config.prompts):
        prompt = kept[at(place, len(kept), 0)][1]
        own = [[*prompt[::-1], trl_peer.EOS]]
        texts = [one.ids for one in answers[tuple(prompt)]] if place in stage.sampled(1) else own
        found += [(prompt, ids) for ids in texts]
    return found


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_any_layout_gives_the_gradient_of_separate_sequences(case, share, folders):
    made = tiny.rollout(4)
    options = {"on_policy": share, "temperature": 1.0} | CASES[case]
    expected = None
    packs = set()
    for padded, budget in [(True, 60), *((False, budget) for budget in BUDGETS)]:
        stage = distill_stage.stage(*folders, made, padded=padded, token_budget=budget, **options)
        if expected is None:
            loss, gradient, figures = distill_stage.naive(
                *folders,
                sequences(stage, made),
                beta=options["beta"],
                temperature=options["temperature"],
            )
            expected = {f"policy.model.{name}": value for name, value in gradient.items()}
            assert torch.cat([g.flatten() for g in expected.values()]).norm() > 0.05
        batch = stage.collect(1)
        packs.add(len(batch.minibatches[0]))
        got = tiny.backward(stage, batch, module=stage.context.unwrapped)
        assert got.loss == pytest.approx(loss, rel=1e-5)
        assert trl_peer.relative_distance(got.gradient, expected) < 1e-5
        tokens = got.metrics.pop("tokens")
        means = [got.metrics[name] / tokens for name in ("kl/forward", "kl/reverse", "entropy")]
        assert means == pytest.approx(figures, rel=1e-5)
    assert len(packs) >= 3  # the budgets did cut differently


def student(vocabulary=48, seed=5, beta=0.5):
    model = tiny.model(LlamaConfig, vocab_size=vocabulary)
    trl_peer.move(model, seed=seed, by=0.5)
    return Student(Policy(model), beta=beta)


def teacher(vocabulary=48):
    return Policy(tiny.model(LlamaConfig, vocab_size=vocabulary)).requires_grad_(False)


def one_pack():
    completions = [Completion(ids=ids) for ids in ([7, 8, 20, 1], [40, 1], [3, 3, 21, 17, 33, 1])]
    return pack([Group(prompt=[5, 9, 11], completions=completions)], token_budget=100)[0]


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_chunks_change_nothing_but_what_is_kept_for_the_backward_pass(beta):
    """12 tokens in chunks of 5: nothing kept has a row of the vocabulary."""
    module, other, one = student(beta=beta), teacher(), one_pack()
    results = {}
    for chunk in (None, 5):
        kept = []

        def note(tensor, kept=kept):
            kept.append(tuple(tensor.shape))
            return tensor

        module.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            values, figures = module(one, other, chunk=chunk)
        values.square().sum().backward()
        results[chunk] = (values.detach(), figures, trl_peer.gradient(module), kept)
    whole, cut = results[None], results[5]
    assert whole[0].shape == (12,) and whole[1].shape == (3, 12)
    for mine, theirs in zip(cut[:2], whole[:2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)
    assert trl_peer.relative_distance(cut[2], whole[2]) < 1e-6
    assert any(shape[-1:] == (48,) and len(shape) == 2 and shape[0] == 12 for shape in whole[3])
    assert not any(shape[-1:] == (48,) for shape in cut[3])
    assert not figures.requires_grad


def test_a_long_pack_is_cut_by_its_own_size(monkeypatch):
    module, other, one = student(), teacher(), one_pack()
    seen = []
    original = Student._compare

    def compare(self, mine, *others):
        seen.append(len(mine))
        return original(self, mine, *others)

    monkeypatch.setattr(Student, "_compare", compare)
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 4 * 48 * 7)
    logged = Mock(wraps=forward_kl)
    monkeypatch.setattr("align.modeling.student.forward_kl", logged)
    values, figures = module(one, other)
    assert seen == [7, 5]
    values.sum().backward()
    assert seen == [7, 5, 5, 7]  # made again
    assert logged.call_count == 2 and figures.shape == (3, 12)  # what is logged is not


def test_rows_of_padding_after_the_last_token_are_left_out():
    """As in a family whose models round their vocabulary up differently."""
    one, beta = one_pack(), 0.5
    narrow = student(beta=beta)
    wide = teacher(vocabulary=56)
    values, _ = narrow(one, wide)
    ours = narrow.policy.logits(narrow.policy.predictors(one)).log_softmax(-1).exp()
    theirs = wide.logits(wide.predictors(one))[:, :48].softmax(-1)
    m = (ours + theirs) / 2
    expected = (ours * (ours / m).log() + theirs * (theirs / m).log()).sum(-1) / 2
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)
    flipped, _ = student(vocabulary=56)(one, teacher())
    assert flipped.isfinite().all()
