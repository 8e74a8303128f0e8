"""A small real HTTP server in this process that answers as a vLLM server does."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STOP = [2]


class StandIn:
    """Answers with ids made of the seed; `change` replaces the answer of one route."""

    def __init__(self, tokenizer):
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
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body):
                stand_in.keys.append(self.headers["Authorization"])
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

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # many connect at the same time

        self.server = Server(("127.0.0.1", 0), Handler)
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


def completion(ids, reason="stop"):
    """An answer of one choice, as vLLM gives it."""
    logprobs = {"token_logprobs": [-0.5] * len(ids)}
    return {"choices": [{"token_ids": ids, "logprobs": logprobs, "finish_reason": reason}]}
