"""The server engine: what it asks and what it says when something is wrong.

The fast tests speak to a stand-in, a small real HTTP server in this process that answers as vLLM
does; one test, at the end, starts vLLM itself.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import tiny
from transformers import AutoConfig, AutoModelForCausalLM

from align.config import Engine, Sampling
from align.rollout import EngineError, Request
from align.rollout.build import build
from align.rollout.server import PROBE, ServerEngine

STOP = [2]


class StandIn:
    """Answers with ids made of the seed; `change` replaces the answer of one route."""

    def __init__(self, tokenizer):
        self.bodies, self.busy, self.most = [], 0, 0
        self.lock = threading.Lock()
        self.routes = {
            "/v1/models": lambda _: {"data": [{"id": "teacher", "max_model_len": 100}]},
            "/tokenize": lambda body: {
                "tokens": tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
            },
            "/v1/completions": self.complete,
        }
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(None)

            def do_POST(self):
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body):
                route = stand_in.routes.get(self.path)
                status, content = 404, {"detail": "Not Found"}
                if route is not None:
                    found = route(body)
                    status, content = found if isinstance(found, tuple) else (200, found)
                text = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # who asked has given up
                    self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def complete(self, body):
        with self.lock:
            self.bodies.append(body)
            self.busy += 1
            self.most = max(self.most, self.busy)
        time.sleep(0.05 if body["seed"] % 2 else 0.01)  # answers come out of order
        with self.lock:
            self.busy -= 1
        cut = body["seed"] % 5 == 0
        ids = [body["seed"], len(body["prompt"]), *([] if cut else STOP)]
        return {
            "choices": [
                {
                    "token_ids": ids,
                    "logprobs": {"token_logprobs": [-0.5] * len(ids)},
                    "finish_reason": "length" if cut else "stop",
                }
            ]
        }


@pytest.fixture
def stand_in():
    made = StandIn(tiny.chat_tokenizer())
    yield made
    made.server.shutdown()
    made.server.server_close()


def _engine(url, served="", time_limit=20.0, **sampling):
    settings = {"temperature": 0.7, "top_p": 0.9, "max_prompt_tokens": 64, "max_tokens": 12}
    return ServerEngine(
        tiny.chat_tokenizer(),
        engine=Engine(kind="server", url=url, served=served, time_limit=time_limit),
        sampling=Sampling(**(settings | sampling)),
        stop=STOP,
    )


def test_every_seed_is_asked_for_and_answers_keep_their_order(stand_in):
    requests = [Request(prompt=[7] * n, seeds=[10 * n + i for i in range(6)]) for n in (3, 1, 2)]
    groups = _engine(stand_in.url).sample(requests)
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


def test_an_address_may_end_in_v1(stand_in):
    assert _engine(stand_in.url + "/v1/").model == "teacher"


def test_it_takes_no_weights(stand_in):
    with pytest.raises(EngineError, match=r"--engine.kind server cannot take over the weights"):
        _engine(stand_in.url).sync(iter([]))


def test_no_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        EngineError, match=f"no server answers at http://127.0.0.1:{port} .*--engine.url"
    ):
        _engine(f"http://127.0.0.1:{port}")


def test_another_tokenizer(stand_in):
    stand_in.routes["/tokenize"] = lambda body: {"tokens": [1, 2, 3]}
    with pytest.raises(EngineError, match="whose tokenizer is not that of"):
        _engine(stand_in.url)


def test_without_tokenize_it_goes_on_and_says_so(stand_in, capsys):
    del stand_in.routes["/tokenize"]
    _engine(stand_in.url)
    assert "its tokenizer was not compared" in capsys.readouterr().out


def test_which_model(stand_in):
    with pytest.raises(EngineError, match=r"does not serve 'other'.*teacher"):
        _engine(stand_in.url, served="other")
    stand_in.routes["/v1/models"] = lambda _: {"data": [{"id": "a"}, {"id": "b"}]}
    with pytest.raises(EngineError, match=r"serves several models.*: a, b"):
        _engine(stand_in.url)
    assert _engine(stand_in.url, served="b").model == "b"


def test_too_little_room(stand_in):
    with pytest.raises(EngineError, match=r"room for 100 tokens.*together are 101"):
        _engine(stand_in.url, max_tokens=37)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, {"message": "prompt too long"}), "answered 400: .*prompt too long"),
        (b"<html>", "answered no JSON"),
        ({"choices": [{"text": "5", "finish_reason": "stop"}]}, "must be vLLM 0.10.2 or newer"),
    ],
    ids=["refused", "no-json", "no-ids"],
)
def test_what_a_completion_comes_to(stand_in, answer, said):
    engine = _engine(stand_in.url)
    stand_in.routes["/v1/completions"] = lambda _: answer
    with pytest.raises(EngineError, match=said):
        engine.sample([Request(prompt=[1], seeds=[1, 2, 3])])


def test_a_completion_has_a_time_limit(stand_in):
    engine = _engine(stand_in.url, time_limit=0.3)
    stand_in.routes["/v1/completions"] = lambda _: time.sleep(2)
    begun = time.monotonic()
    with pytest.raises(EngineError, match=r"did not answer in time.*--engine.time-limit"):
        engine.sample([Request(prompt=[1], seeds=[1])])
    assert time.monotonic() - begun < 1.5


@pytest.mark.vllm
@pytest.mark.slow
def test_a_real_vllm_server(tmp_path):
    """Its tokens, ends and seeds are what the engine in this process promises too."""
    pytest.importorskip("vllm", reason="vLLM is not installed (make setup)")
    # Heads of 16, as the tiny model has, are not among those that vLLM computes on a CPU.
    path = str(tmp_path / "model")
    config = AutoConfig.from_pretrained(tiny.CHAT_FOLDER, head_dim=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tiny.chat_tokenizer().save_pretrained(path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", path]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += [
        "--enforce-eager",
        "--max-model-len",
        "128",
        "--no-enable-chunked-prefill",
        "--logprobs-mode",
        "processed_logprobs",
    ]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 240
        while not _healthy(url):
            assert server.poll() is None and time.monotonic() < deadline, (
                tmp_path / "log"
            ).read_text()[-3000:]
            time.sleep(0.5)
        engine = build(
            Engine(kind="server", url=url),
            sampling=Sampling(max_prompt_tokens=64, max_tokens=48),
            path=path, model=None, stop=STOP, sequences=16, autocast=None,
        )  # fmt: skip
        prompt = tiny.chat_tokenizer()(PROBE[:20])["input_ids"]
        requests = [Request(prompt=prompt, seeds=[1, 2, 3, 1]), Request(prompt=[5], seeds=[1] * 12)]
        first, other = engine.sample(requests)
        assert first[0].ids == first[3].ids != first[1].ids
        assert len({tuple(sample.ids) for sample in other}) == 1
        again, _ = engine.sample(requests)
        assert [sample.ids for sample in again] == [sample.ids for sample in first]
        many = engine.sample([Request(prompt=prompt, seeds=list(range(40)))])[0]
        assert {sample.truncated for sample in many} == {True, False}
        for sample in many:
            assert (sample.ids[-1] in STOP) == (not sample.truncated)
            assert not any(token in STOP for token in sample.ids[:-1])
            assert len(sample.ids) == len(sample.logprobs)
            assert len(sample.ids) == 48 or not sample.truncated
    finally:
        server.terminate()
        server.wait(timeout=60)


def _healthy(url):
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
