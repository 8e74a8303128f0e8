"""SFT: the loss is Hugging Face's own cross-entropy on the same labels, whatever the layout."""

import pytest
import tiny
import torch
import trl_peer
from datasets import Dataset

import data
from align.config import Compute, Sft
from align.order import at
from align.stages.sft import SftStage

IGNORED = -100
ORDERS = [(0, 0), (1, 0), (2, 0), (0, 1)]  # epoch, seed
END = 2  # the chat tokenizer's <|im_end|>


def chat(*turns):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


CHATS = [
    chat("1 + 1", "2"),
    chat("12 + 30", "12 + 30 is 42"),
    chat("1", "one", "2", "two is more"),
    chat("a long question, " * 2, "yes"),
    chat("3", "4" * 30),
]


def stage(chats, *, padded=False, token_budget=1000, tokenizer=None, **config):
    settings = {
        "batch": len(chats),
        "compute": Compute(precision="fp32", token_budget=token_budget),
    }
    return SftStage(
        Sft(model="", data=data.Arithmetic(), **(settings | config)),
        tiny.context(
            tiny.model(vocab_size=100, max_position_embeddings=512),
            tokenizer or tiny.chat_tokenizer(),
            padded=padded,
        ),
        Dataset.from_list([{"messages": messages} for messages in chats]),
    )


def hugging_face_loss(model, rows):
    """Right-padded ids, -100 where nothing is trained: `labels=` of the model itself."""
    width = max(len(row.ids) for row in rows)

    def grid(values, fill):
        return torch.tensor([[*one, *[fill] * (width - len(one))] for one in values])

    labels = [
        [token if wanted else IGNORED for token, wanted in zip(row.ids, row.mask, strict=True)]
        for row in rows
    ]
    return model(
        input_ids=grid([row.ids for row in rows], 0),
        attention_mask=grid([[1] * len(row.ids) for row in rows], 0),
        labels=grid(labels, IGNORED),
    ).loss


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_loss_and_gradient_equal_hugging_face(budget, padded):
    sft = stage(CHATS, padded=padded, token_budget=budget)
    step = tiny.backward(sft, sft.collect(1))
    model = sft.context.model
    model.zero_grad()
    expected = hugging_face_loss(model, sft.rows)
    expected.backward()
    assert step.loss == pytest.approx(expected.item(), rel=1e-5)
    assert trl_peer.relative_distance(step.gradient, trl_peer.gradient(model)) < 1e-5


def test_every_answer_is_trained_with_its_end_token():
    """The targets are the assistant's characters and <|im_end|>, of both turns of a dialogue; the
    user's turn between them is not trained.
    """
    tokenizer = tiny.chat_tokenizer()
    sft = stage([CHATS[2]])
    (one,) = sft.collect(1).minibatches[0]
    assert tokenizer.decode(one.target) == "one<|im_end|>two is more<|im_end|>"
    assert one.columns["weight"].tolist() == pytest.approx([1 / len(one.target)] * len(one.target))


def test_the_end_token_is_trained_where_it_is_the_pad_token():
    tokenizer = tiny.chat_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    sft = stage(CHATS[:2], tokenizer=tokenizer, padded=True)
    (one,) = sft.collect(1).minibatches[0]
    assert (one.target == END).sum() == 2
    expected = hugging_face_loss(sft.context.model, sft.rows)
    assert tiny.backward(sft, sft.collect(1)).loss == pytest.approx(expected.item(), rel=1e-5)


def test_rows_over_the_limit_are_dropped(capsys):
    lengths = [len(row.ids) for row in stage(CHATS).rows]
    limit = sorted(lengths)[2]
    kept = stage(CHATS, max_tokens=limit).rows
    assert [len(row.ids) for row in kept] == [length for length in lengths if length <= limit]
    assert len(kept) == 3
    assert f"dropped 2 of 5 rows longer than max_tokens={limit}" in capsys.readouterr().out


def test_no_row_left_is_an_error():
    with pytest.raises(data.DataError, match="max_tokens=3"):
        stage(CHATS, max_tokens=3)


def visited(sft):
    """The answers (single letters) of each step, in the order of their tokens."""
    decode = sft.context.tokenizer.decode
    return [
        sorted(
            decode([token])
            for one in sft.collect(step).minibatches[0]
            for token in one.target.tolist()
            if token != END
        )
        for step in range(1, sft.steps + 1)
    ]


def test_each_epoch_visits_every_row_once():
    """7 rows, 2 epochs, batch 3: 14 places in 5 steps of 3, 3, 3, 3, 2. Places 0-6 are the first
    epoch, 7-13 the second.
    """
    letters = "abcdefg"
    chats = [chat("x", letter) for letter in letters]
    steps = visited(stage(chats, epochs=2, batch=3))
    assert [len(step) for step in steps] == [3, 3, 3, 3, 2]
    everything = [letter for step in steps for letter in step]
    assert sorted(everything) == sorted(letters * 2)
    first = steps[0] + steps[1]
    (seventh,) = set(letters) - set(first)
    assert len(set(first)) == 6
    assert seventh in steps[2]
    assert visited(stage(chats, epochs=2, batch=3)) == steps
    assert visited(stage(chats, epochs=2, batch=3, seed=1)) != steps


def test_epochs_are_shuffled_differently():
    """20 rows: two independent orders are the same once in 20! (2e18)."""
    orders = [[at(20 * epoch + i, 20, seed) for i in range(20)] for epoch, seed in ORDERS]
    assert all(sorted(one) == list(range(20)) for one in orders)
    assert len({tuple(one) for one in orders}) == len(ORDERS)


def test_part_of_an_epoch():
    """Half an epoch of 4 rows in batches of 1 is 2 steps."""
    chats = [chat("x", letter) for letter in "abcd"]
    steps = visited(stage(chats, epochs=0.5, batch=1))
    assert len(steps) == 2
    assert steps[0] != steps[1]


def test_entropy_is_measured():
    """Sum over the trained tokens of the entropy of the whole distribution there."""
    sft = stage(CHATS[:1])
    step = tiny.backward(sft, sft.collect(1))
    (row,) = sft.rows
    log_p = sft.context.model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
    at = [place - 1 for place, wanted in enumerate(row.mask) if wanted]
    expected = -(log_p[at].exp() * log_p[at]).sum().item()
    assert step.metrics["entropy"] == pytest.approx(expected, rel=1e-5)
