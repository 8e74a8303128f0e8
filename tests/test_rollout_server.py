"""The server engine: what it asks and what it says when something is wrong.

The fast tests speak to a stand-in; one test, at the end, starts vLLM itself.
"""

import socket
import threading
import time

import pytest
import tiny
from stand_in import STOP, StandIn, completion

from align.config import Engine, Sampling
from align.rollout import EngineError, Request
from align.rollout.server import ServerEngine


@pytest.fixture
def stand_in():
    made = StandIn(tiny.chat_tokenizer())
    yield made
    made.close()


def engine_at(url, served="", time_limit=20.0, patience=0.0, **sampling):
    settings = {"temperature": 0.7, "top_p": 0.9, "max_prompt_tokens": 64, "max_tokens": 12}
    return ServerEngine(
        tiny.chat_tokenizer(),
        engine=Engine(
            kind="server", url=url, served=served, time_limit=time_limit, patience=patience
        ),
        sampling=Sampling(**(settings | sampling)),
        stop=STOP,
    )


def test_every_seed_is_asked_for_and_answers_keep_their_order(stand_in):
    requests = [Request(prompt=[7] * n, seeds=[10 * n + i for i in range(6)]) for n in (3, 1, 2)]
    groups = engine_at(stand_in.url).sample(requests)
    for request, samples in zip(requests, groups, strict=True):
        assert [sample.ids[:2] for sample in samples] == [
            [seed, len(request.prompt)] for seed in request.seeds
        ]
        assert [sample.truncated for sample in samples] == [s % 5 == 0 for s in request.seeds]
        assert all(len(sample.logprobs) == len(sample.ids) for sample in samples)
    assert stand_in.most > 3  # at the same time, for the server to batch
    assert len(stand_in.bodies) == 18
    body = next(body for body in stand_in.bodies if body["seed"] == 10)
    assert body["model"] == "teacher" and body["prompt"] == [7]
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.7, 0.9, -1)
    assert (body["max_tokens"], body["stop_token_ids"]) == (12, STOP)
    assert (body["repetition_penalty"], body["min_p"]) == (1.0, 0.0)  # else the model's own


def test_an_address_may_end_in_v1(stand_in):
    assert engine_at(stand_in.url + "/v1/").model == "teacher"


def test_only_a_key_of_its_own_is_sent(stand_in, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "for another service")
    monkeypatch.delenv("ALIGN_SERVER_KEY", raising=False)
    engine_at(stand_in.url).sample([Request(prompt=[1], seeds=[1])])
    assert stand_in.keys == [None] * 4
    monkeypatch.setenv("ALIGN_SERVER_KEY", "ours")
    engine_at(stand_in.url).sample([Request(prompt=[1], seeds=[1])])
    assert stand_in.keys[4:] == ["Bearer ours"] * 4


def test_after_an_error_nothing_more_is_asked_nor_waited_for(stand_in):
    """The others under way, each of which would take 30 seconds, are given up."""
    over = threading.Event()

    def answer(body):
        stand_in.bodies.append(body)
        if body["seed"]:
            over.wait(30)
        return (500, {"message": "out of memory"})

    engine = engine_at(stand_in.url)
    stand_in.routes["/v1/completions"] = answer
    begun = time.monotonic()
    with pytest.raises(EngineError, match="out of memory"):
        engine.sample([Request(prompt=[1], seeds=range(500))])
    over.set()
    assert time.monotonic() - begun < 15
    assert len(stand_in.bodies) < 70


def test_where_nothing_trains_it_takes_no_weights(stand_in):
    with pytest.raises(EngineError, match=r"weights stay as they are"):
        engine_at(stand_in.url).sync(iter([]))


def test_no_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        EngineError, match=f"no server answers at http://127.0.0.1:{port} .*--engine.url"
    ):
        engine_at(f"http://127.0.0.1:{port}")


def test_another_tokenizer(stand_in):
    stand_in.routes["/tokenize"] = lambda body: {"tokens": [1, 2, 3]}
    with pytest.raises(EngineError, match="whose tokenizer is not that of"):
        engine_at(stand_in.url)


def test_without_tokenize_it_goes_on_and_says_so(stand_in, capsys):
    del stand_in.routes["/tokenize"]
    engine_at(stand_in.url)
    assert "its tokenizer was not compared" in capsys.readouterr().out


def test_which_model(stand_in):
    with pytest.raises(EngineError, match=r"does not serve 'other'.*teacher"):
        engine_at(stand_in.url, served="other")
    stand_in.routes["/v1/models"] = lambda _: {"data": [{"id": "a"}, {"id": "b"}]}
    with pytest.raises(EngineError, match=r"serves several models.*: a, b"):
        engine_at(stand_in.url)
    assert engine_at(stand_in.url, served="b").model == "b"


@pytest.mark.parametrize(
    "answer",
    [{}, {"data": None}, {"data": [{"name": "a"}]}, {"data": ["a"]}, {"data": {"a": 1}}],
    ids=["nothing", "none", "no-id", "no-object", "no-list"],
)
def test_a_list_of_models_that_is_none(stand_in, answer):
    stand_in.routes["/v1/models"] = lambda _: answer
    with pytest.raises(EngineError, match=r"/v1/models does not list models as vLLM does"):
        engine_at(stand_in.url)


def test_too_little_room(stand_in):
    with pytest.raises(EngineError, match=r"room for 100 tokens.*together are 101"):
        engine_at(stand_in.url, max_tokens=37)


def _changed(**choice):
    """A completion with another value somewhere."""
    answer = completion([5, *STOP])
    answer["choices"][0] |= choice
    return answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, {"message": "prompt too long"}), "answered 400: .*prompt too long"),
        (b"<html>", "answered no JSON"),
        (
            {"choices": [{"text": "5", "finish_reason": "stop"}]},
            "vLLM 0.10.2 and newer do.*'token_",
        ),
        (_changed(token_ids=None), "with token ids and log-probs .*'token_ids': None"),
        (_changed(logprobs=None), "with token ids and log-probs .*'logprobs': None"),
        (_changed(token_ids=[5]), "1 token ids and 2 log-probs"),
        (_changed(finish_reason="abort"), "finish_reason 'abort'"),
        ({"choices": []}, "does not answer as vLLM"),
    ],
    ids=["refused", "no-json", "other-api", "no-ids", "no-logprobs", "too-few", "ended", "none"],
)
def test_what_a_completion_comes_to(stand_in, answer, said):
    engine = engine_at(stand_in.url)
    stand_in.routes["/v1/completions"] = lambda _: answer
    with pytest.raises(EngineError, match=said):
        engine.sample([Request(prompt=[1], seeds=[1, 2, 3])])


@pytest.mark.alone
def test_a_completion_has_a_time_limit(stand_in):
    engine = engine_at(stand_in.url, time_limit=0.3)
    stand_in.routes["/v1/completions"] = lambda _: time.sleep(2)
    begun = time.monotonic()
    with pytest.raises(EngineError, match=r"did not answer in time.*--engine.time-limit"):
        engine.sample([Request(prompt=[1], seeds=[1])])
    assert time.monotonic() - begun < 1.5
