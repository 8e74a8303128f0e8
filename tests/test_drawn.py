"""What becomes of a sampled text before it is scored: cut only where examples taught to go on."""

from types import SimpleNamespace

import pytest
import tiny

import data
import rewards
from align.rollout import Sample
from align.stages.drawn import Drawer
from data.prompting import FewShot, Plain, Reflect

EXAMPLES = FewShot(examples=data.Arithmetic(size=4))
TEXT = "<think> two parts\n---\nUser: said so </think>"


class Sampler:
    """Answers each prompt with the text, cut at the limit of tokens."""

    def sample(self, requests):
        ids = tiny.chat_tokenizer()(TEXT, add_special_tokens=False)["input_ids"]
        cut = Sample(ids=ids, logprobs=[-0.5] * len(ids), truncated=True)
        return [[cut] * len(request.seeds) for request in requests]


@pytest.mark.parametrize(
    ("prompting", "prompt", "cut"),
    [
        (EXAMPLES, "2 + 3 =", True),
        (EXAMPLES, [{"role": "user", "content": "2 + 3 ="}], False),
        (Plain(), "2 + 3 =", False),
        (Reflect(), "2 + 3 =", False),
    ],
)
def test_a_text_is_cut_at_a_rule_after_plain_examples_alone(prompting, prompt, cut):
    """A model's own rule within its reasoning stays, and so does the mark of the limit."""
    drawer = Drawer(
        SimpleNamespace(
            prompting=prompting,
            clean=False,
            seed=0,
            samples=1,
            reward=rewards.Repetition(n=1, max_penalty=-1.0),
        ),
        SimpleNamespace(tokenizer=tiny.chat_tokenizer()),
        Sampler(),
        SimpleNamespace(rows=[{"prompt": prompt}]),
    )
    (drawn,) = drawer.draw([(0, [5, 6])])
    assert drawn.texts == ["<think> two parts" if cut else TEXT]
    assert drawn.raw == [TEXT if cut else None]
    assert drawn.samples[0].truncated != cut
