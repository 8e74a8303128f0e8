"""Ports that are really held, and hubs that hang, refuse or are not there."""

import os
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from doctor_tools import config, listening, looked, only

from align.doctor import hub, launching, ports
from align.doctor.asked import Asked


@contextmanager
def answering(status, body=b"[]", **headers):
    """A web server; its port and the headers that it was sent."""
    heard = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(dict(self.headers))
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port, heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_ports_that_are_held(tmp_path, monkeypatch):
    with listening() as port:
        me = f"(process {os.getpid()})"
        monkeypatch.setattr(ports, "SERVER", port)
        monkeypatch.setattr(launching, "PORT", port)
        monkeypatch.setattr(launching, "files", lambda _: [])
        found = looked(ports.check_ports, Asked())
        server = only(found, "warning", "ports", said="vLLM's server", cure="--engine.url http")
        assert me in server.said
        only(found, "warning", "ports", said="processes meet", cure="--main_process_port ")
        free = int(only(found, "warning", "ports", said="meet").cure.split()[-2])
        assert free > port
        assert ports.holder(free) is None
        monkeypatch.undo()
        file = config(tmp_path, num_machines=2, main_process_port=port)
        found = looked(ports.check_ports, Asked(accelerate=file))
        only(found, "error", "ports", said=f"{port} (where", cure="--main_process_port ")
    found = looked(ports.check_ports, Asked(accelerate=file))
    only(found, "note", "ports", said=f"{port} (where accelerate's processes meet) is free")


def test_a_server_of_ours_is_no_stranger(monkeypatch):
    with answering(200, b'{"data": [{"id": "smollm2"}]}') as (port, _):
        monkeypatch.setattr(ports, "SERVER", port)
        monkeypatch.setattr(launching, "files", lambda _: [])
        found = looked(ports.check_ports, Asked())
    only(found, "note", "ports", said="a server of smollm2")


@pytest.fixture
def online(monkeypatch):
    for name in (*hub.SWITCHES, *hub.PROXIES, "HTTP_PROXY", "http_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def point(port):
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")

    return point


def test_a_hub_that_is_closed_or_hangs(online, monkeypatch):
    with listening() as port:
        online(port)
        began = time.monotonic()
        found = looked(hub.check_hub, Asked())
        assert time.monotonic() - began < 10
        only(found, "warning", "hub", said="cannot be reached", cure=f"http://127.0.0.1:{port}")
    found = looked(hub.check_hub, Asked())
    only(found, "warning", "hub", said="Connect", cure="work without it: --model FOLDER")
    monkeypatch.setenv("HF_ENDPOINT", "http://[bad")
    only(looked(hub.check_hub, Asked()), "warning", "hub", said="cannot be reached", cure="curl")


def test_a_hub_that_refuses_and_secrets_that_stay(online, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_TopSecret")
    with answering(401) as (port, heard):
        online(port)
        found = looked(hub.check_hub, Asked())
        only(found, "warning", "hub", said="refuses the token (401)", cure="hf auth login")
        assert heard[0]["Authorization"] == "Bearer hf_TopSecret"
        monkeypatch.setenv("HF_ENDPOINT", f"http://me:Hidden1@127.0.0.1:{port}")
        monkeypatch.setenv("HTTPS_PROXY", "http://me:Hidden2@127.0.0.1:9")
        more = looked(hub.check_hub, Asked())
        assert more.found
    shown = str(found.as_json() + more.as_json())
    assert not any(secret in shown for secret in ("TopSecret", "Hidden1", "Hidden2"))
    with answering(404) as (port, _):
        online(port)
        found = looked(hub.check_hub, Asked())
        only(found, "warning", "hub", said="answers 404", cure="unset HF_ENDPOINT")


def test_a_hub_that_answers_and_its_clock(online):
    with answering(200, Date="Mon, 01 Jan 2001 00:00:00 GMT") as (port, heard):
        online(port)
        found = looked(hub.check_hub, Asked())
    only(found, "note", "hub", said="answers, no token")
    only(found, "warning", "clock", said="ahead of the hub's", cure="timedatectl")
    assert "Authorization" not in heard[0]


def test_a_hub_switched_off(online, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cure = "unset HF_HUB_OFFLINE"
    only(looked(hub.check_hub, Asked()), "warning", "hub", said="switched off by", cure=cure)


def test_a_proxy_that_is_none_and_a_token_that_cannot_be_read(online, monkeypatch, tmp_path):
    online(9)
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")

    def refuse():
        raise NotADirectoryError(tmp_path)

    monkeypatch.setattr(hub, "get_token", refuse)
    said, cure = "through http://127.0.0.1:9 cannot be reached", "unset https_proxy; or work"
    only(looked(hub.check_hub, Asked()), "warning", "hub", said=said, cure=cure)
