"""The hf engine: what it draws, from which distribution, and what it says about it."""

import pytest
import tiny
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from align.config import Sampling
from align.modeling.policy import Policy
from align.packing import Completion, Group, pack
from align.rollout import Request, seed_of
from align.rollout.hf import ROWS, HfEngine

STOP = [1]
PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15], [40]]


def engine(model=None, stop=STOP, autocast=None, **sampling):
    settings = {"temperature": 0.7, "max_prompt_tokens": 32, "max_tokens": 12} | sampling
    return HfEngine(
        model or tiny.model(), sampling=Sampling(**settings), stop=stop, autocast=autocast
    )


def requests(samples=4, step=1):
    return [
        Request(prompt=prompt, seeds=[seed_of(0, step, row, i) for i in range(samples)])
        for row, prompt in enumerate(PROMPTS)
    ]


def ids(groups):
    return [[sample.ids for sample in samples] for samples in groups]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_log_probs_are_the_trainers(autocast):
    """In float32 to rounding; under autocast both are in bf16, so to its noise."""
    model = tiny.model()
    groups = engine(model, autocast=autocast).sample(requests())
    policy = Policy(model, temperature=0.7, autocast=autocast)
    for prompt, samples in zip(PROMPTS, groups, strict=True):
        completions = [Completion(ids=sample.ids) for sample in samples]
        (one,) = pack([Group(prompt=prompt, completions=completions)], token_budget=1000)
        with torch.no_grad():
            expected, _ = policy(one)
        got = torch.tensor([value for sample in samples for value in sample.logprobs])
        if autocast is None:
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        else:
            assert (got - expected).abs().mean() < 0.05


def test_top_k_and_top_p_log_probs_are_renormalised():
    """Top 2 of the plain distribution at temperature 1: the two probabilities over their sum."""
    model = tiny.model()
    with torch.no_grad():
        p = model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    top = p.topk(2)
    seeds = [seed_of("top", i) for i in range(40)]
    for limits in ({"top_k": 2}, {"top_p": float(top.values.sum()) - 1e-3}):
        sampler = engine(model, temperature=1.0, max_tokens=1, **limits)
        (samples,) = sampler.sample([Request(prompt=PROMPTS[0], seeds=seeds)])
        seen = {sample.ids[0]: sample.logprobs[0] for sample in samples}
        expected = (top.values / top.values.sum()).log().tolist()
        assert seen == pytest.approx(
            dict(zip(top.indices.tolist(), expected, strict=True)), rel=1e-4
        )


def test_equal_requests_draw_equally_whatever_the_global_random_state():
    sampler = engine()
    torch.manual_seed(1)
    first = sampler.sample(requests())
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert sampler.sample(requests()) == first
    torch.manual_seed(1)
    sampler.sample(requests())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_completion_depends_on_its_prompt_and_seed_alone():
    """Reversed, and with one request left out, so that the padding differs: the same tokens.

    Other padding rounds the logits differently by 1e-6; a token changes only if its uniform number
    falls that close to a border, which these seeds do not.
    """
    sampler = engine()
    asked = requests()
    drawn = ids(sampler.sample(asked))
    assert ids(sampler.sample(asked[::-1])) == drawn[::-1]
    assert ids(sampler.sample([asked[0], asked[1], asked[3]])) == [drawn[0], drawn[1], drawn[3]]
    turned = [Request(prompt=asked[0].prompt, seeds=asked[0].seeds[::-1])]
    assert ids(sampler.sample(turned)) == [drawn[0][::-1]]


def test_other_seeds_draw_otherwise():
    drawn = ids(engine().sample(requests()))
    assert ids(engine().sample(requests(step=2))) != drawn
    assert len({tuple(one) for one in drawn[0]}) > 1


def test_order_is_kept_over_several_batches():
    """More rows than are decoded together: group by group as asked for."""
    sampler = engine(max_tokens=2)
    seeds = [seed_of("many", i) for i in range(ROWS + 5)]
    asked = [Request(prompt=PROMPTS[0], seeds=seeds), Request(prompt=PROMPTS[1], seeds=[7, 8])]
    first, second = sampler.sample(asked)
    assert (len(first), len(second)) == (ROWS + 5, 2)
    single = sampler.sample([Request(prompt=PROMPTS[0], seeds=seeds[-2:]), asked[1]])
    assert ids([first[-2:], second]) == ids(single)


def test_frequencies_follow_the_softmax():
    """4,000 first tokens at temperature 0.7 against the softmax: chi-square over the tokens
    expected at least 5 times, the others in one bin. The seeds are fixed, so this cannot fail by
    chance; a temperature of 0.8 is told apart.
    """
    model = tiny.model()
    seeds = [seed_of("chi", i) for i in range(4000)]
    sampler = engine(model, max_tokens=1)
    (samples,) = sampler.sample([Request(prompt=PROMPTS[0], seeds=seeds)])
    counts = torch.bincount(torch.tensor([s.ids[0] for s in samples]), minlength=48).double()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1].double()

    def p_value(temperature):
        expected = (logits / temperature).softmax(-1) * len(seeds)
        often = expected >= 5
        bins = [(counts[i].item(), expected[i].item()) for i in often.nonzero().flatten()]
        if not often.all():
            bins.append((counts[~often].sum().item(), expected[~often].sum().item()))
        return chisquare(*zip(*bins, strict=True)).pvalue

    assert p_value(0.7) > 0.01
    assert p_value(0.8) < 1e-6


def test_greedy_takes_the_likeliest_token():
    model = tiny.model()
    groups = engine(model, temperature=0.0).sample(requests(samples=1))
    for prompt, (sample,) in zip(PROMPTS, groups, strict=True):
        so_far = list(prompt)
        for token, logprob in zip(sample.ids, sample.logprobs, strict=True):
            with torch.no_grad():
                log_p = model(torch.tensor([so_far])).logits[0, -1].log_softmax(-1)
            assert token == log_p.argmax()
            assert logprob == pytest.approx(log_p.max().item(), rel=1e-4, abs=1e-5)
            so_far.append(token)


def test_completions_end_with_the_end_token_or_are_truncated():
    """Both kinds occur; nothing comes after the end token, and a cut one has the full length."""
    samples = [s for group in engine(stop=[1, 2, 3]).sample(requests(samples=16)) for s in group]
    assert {sample.truncated for sample in samples} == {False, True}
    for sample in samples:
        stops = [token in (1, 2, 3) for token in sample.ids]
        assert not any(stops[:-1])
        assert stops[-1] == (not sample.truncated)
        assert len(sample.ids) == len(sample.logprobs)
        assert len(sample.ids) == 12 or not sample.truncated


def test_the_models_own_generation_settings_are_not_picked_up():
    """Qwen's instruct models keep a repetition penalty there; other models keep other things."""
    plain = engine(tiny.model(), stop=STOP).sample(requests())
    first = plain[0][0].ids[0]
    for setting in (
        {"repetition_penalty": 5.0},
        {"suppress_tokens": [first]},
        {"min_new_tokens": 12},
        {"no_repeat_ngram_size": 1},
        {"bad_words_ids": [[first]]},
        {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.1},
        {"max_length": 4, "num_beams": 3},
        {"eos_token_id": first},
    ):
        model = tiny.model()
        model.generation_config = GenerationConfig(**setting)
        assert engine(model).sample(requests()) == plain, setting
        assert model.generation_config.to_diff_dict().keys() >= setting.keys()


def test_the_models_training_mode_is_put_back():
    model = tiny.model().train()
    engine(model).sample(requests(samples=1))
    assert model.training
