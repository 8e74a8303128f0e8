"""A server that goes away while it is asked, and one that comes back."""

import asyncio
import time
from types import SimpleNamespace

import pytest
import tiny
from stand_in import StandIn, back_after
from test_rollout_server import engine_at

from align.config import Engine
from align.rollout import EngineError, Request, connection
from align.rollout.connection import Connection, GoneError


@pytest.fixture
def stand_in():
    made = StandIn(tiny.chat_tokenizer())
    yield made
    made.close()


@pytest.mark.parametrize("failure", [(503, {}), (None, {})], ids=["503", "broken-off"])
def test_one_that_is_gone_for_a_while_is_waited_for(stand_in, capsys, failure):
    """And everything is asked again: what it had answered may not be there any more."""
    engine = engine_at(stand_in.url, patience=20.0)
    left = [failure] * 9

    def answer(body):
        return left.pop() if left and body["seed"] > 2 else stand_in.complete(body)

    stand_in.routes["/v1/completions"] = answer
    requests = [Request(prompt=[1], seeds=range(6))]
    groups = engine.sample(requests)
    assert not left
    assert [sample.ids[0] for sample in groups[0]] == [0, 1, 2, 3, 4, 5]
    out = capsys.readouterr().out.replace("\n", " ")
    assert out.count("trying again for 20 s") == out.count("is back after") >= 1


def test_its_return_is_said_once_it_answers(stand_in, capsys):
    engine = engine_at(stand_in.url, patience=30.0)
    stand_in.close()
    again = back_after(2.5, StandIn, tiny.chat_tokenizer(), stand_in.server.server_port)
    engine.sample([Request(prompt=[1], seeds=[1])])
    again().close()
    out = capsys.readouterr().out.replace("\n", " ")
    assert out.count("trying again for 30 s") == out.count("is back after") == 1


@pytest.mark.parametrize(
    ("worked", "times"), [(61.0, 3), (59.0, 1)], ids=["long-between", "hardly-back"]
)
def test_each_outage_of_a_long_rollout_has_its_patience(monkeypatch, worked, times):
    """Three of them, with more work in between than it would wait; then what it is asked may be
    what brings it down. One that was hardly back is the same outage still.
    """
    now, laps = 1000.0, []
    line = Connection(Engine(kind="server", patience=60.0))

    async def ready():
        if now < gone_until:
            raise GoneError("away")

    async def work():
        nonlocal now, gone_until
        laps.append(now)
        now += worked
        line._answered = now
        gone_until = now + 40
        raise GoneError("went away")

    async def sleep(seconds):
        nonlocal now
        now += seconds

    gone_until = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(connection, "time", clock)
    monkeypatch.setattr(connection, "asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(EngineError, match=r"went away \(waited .* s; --engine.patience\)"):
        asyncio.run(line.patiently(ready, work))
    assert len(laps) == times + 1


def test_one_that_stays_away_ends_it(stand_in):
    engine = engine_at(stand_in.url, patience=1.2)
    stand_in.routes["/v1/completions"] = lambda _: (503, {})
    begun = time.monotonic()
    with pytest.raises(EngineError, match=rf"{stand_in.url}.*503.*waited . s; --engine.patience"):
        engine.sample([Request(prompt=[1], seeds=[1])])
    assert 0.4 < time.monotonic() - begun < 5


def test_a_request_that_is_refused_is_not_repeated(stand_in):
    engine = engine_at(stand_in.url, patience=60.0)
    asked = []
    stand_in.routes["/v1/completions"] = lambda body: (asked.append(body), (400, {}))[1]
    with pytest.raises(EngineError, match="answered 400"):
        engine.sample([Request(prompt=[1], seeds=[1])])
    assert len(asked) == 1
