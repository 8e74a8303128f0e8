"""A small real HTTP server in this process that answers as a vLLM server does."""

import contextlib
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from align.config import Sampling
from align.rollout import Request
from align.rollout.hf import HfEngine

STOP = [2]


class StandIn:
    """Answers with ids made of the seed; `change` replaces the answer of one route."""

    def __init__(self, tokenizer, port=0):
        self.bodies, self.keys, self.busy, self.most = [], [], 0, 0
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
                text = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(json.loads(text) if text else None)

            def answer(self, body):
                stand_in.keys.append(self.headers["Authorization"])
                route = stand_in.routes.get(self.path.partition("?")[0])
                status, content = 404, {"detail": "Not Found"}
                if route is not None:
                    found = route(body)
                    status, content = found if isinstance(found, tuple) else (200, found)
                text = content if isinstance(content, bytes) else json.dumps(content).encode()
                if status is None:  # as a server does that is killed
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # who asked has given up
                    self.wfile.write(text)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # many connect at the same time

        self.server = Server(("127.0.0.1", port), Handler)
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
        return completion(ids, "length" if cut else "stop")

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Learner(StandIn):
    """One that takes weights, and samples from a small model that has them.

    Its head is apart from the embedding, as vLLM keeps it. `asked` has (seed, what the weights are
    called, their hash) of every completion, `loaded` the hash of every set of weights. After the
    first set it keeps its own of the weights in `keeps`.
    """

    def __init__(self, folder, tokenizer, port=0):
        super().__init__(tokenizer, port)
        config = AutoConfig.from_pretrained(folder, tie_word_embeddings=False)
        torch.manual_seed(0)
        self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        self.first = {name: one.clone() for name, one in self.model.state_dict().items()}
        self.asked, self.loaded, self.folders, self.probes = [], [], [], 0
        self.keeps = ()
        self.computing = threading.Lock()
        self.routes |= {
            "/v1/models": lambda _: {"data": [{"id": "policy", "max_model_len": 600}]},
            "/v1/completions": self.draw,
            "/weight_info": lambda _: {"weight_version": self.version},
            "/server_info": lambda _: {
                "vllm_config": {"model_config": {"logprobs_mode": "processed_logprobs"}}
            },
            "/collective_rpc": self.load,
            "/reset_prefix_cache": lambda _: {"success": True},
            "/update_weight_version": self.name,
        }
        self.start_again()

    def start_again(self):
        """With the weights that it was first started with."""
        with self.computing:
            self.model.load_state_dict(self.first)
        self.version = "default"

    def name(self, body):
        self.version = body["new_version"]
        return {"success": True}

    def load(self, body):
        assert body["method"] == "reload_weights"
        where = body["kwargs"]["weights_path"]
        files = sorted(Path(where).glob("*.safetensors"))
        if not files:
            return (500, {"error": f"no weights in {where}"})
        weights = {name: one for file in files for name, one in load_file(file).items()}
        if body["kwargs"].get("is_checkpoint_format", True):
            if self.loaded:
                weights = {name: weights[name] for name in weights.keys() - set(self.keeps)}
            with self.computing:
                self.model.load_state_dict(weights, strict=False)
            self.folders.append(where)
            self.loaded.append(self.digest())
        else:
            assert not weights
            self.probes += 1
        return {"results": [None]}

    def digest(self):
        sums = [float(one.double().abs().sum()) for one in self.model.parameters()]
        return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:12]

    def draw(self, body):
        sampling = Sampling(temperature=body["temperature"], max_tokens=body["max_tokens"])
        engine = HfEngine(self.model, sampling=sampling, stop=body["stop_token_ids"])
        with self.computing:
            self.asked.append((body["seed"], self.version, self.digest()))
            one = engine.sample([Request(prompt=body["prompt"], seeds=[body["seed"]])])[0][0]
        return completion(one.ids, "length" if one.truncated else "stop", one.logprobs)


def back_after(seconds, make, *args):
    """Start another server then; returns what waits for it and gives it."""
    made = []
    timer = threading.Timer(seconds, lambda: made.append(make(*args)))
    timer.start()
    return lambda: (timer.join(), made[0])[1]


def completion(ids, reason="stop", values=None):
    """An answer of one choice, as vLLM gives it."""
    logprobs = {"token_logprobs": values or [-0.5] * len(ids)}
    return {"choices": [{"token_ids": ids, "logprobs": logprobs, "finish_reason": reason}]}
