"""The folder that a reader of README types in, a server's stand-in, and forks that run there."""

import json
import sys

import pytest
import runs
import tiny
from stand_in import Learner

import data
import recipes


def made_rows(count=8):
    for n in range(count):
        right, wrong = (f"<think>{n} + {n}</think><answer>{x}</answer>" for x in (2 * n, 2 * n + 1))
        yield data.rows.user(f"Compute {n} + {n}."), *map(data.rows.assistant, (right, wrong)), n


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny model in Hugging Face layout, with its tokenizer."""
    folder = tmp_path_factory.mktemp("weights")
    tiny.model(vocab_size=100, max_position_embeddings=4096, eos_token_id=2).save_pretrained(folder)
    tiny.chat_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def reader(tmp_path, weights, monkeypatch):
    """The folder that a reader types in: the checkout, a model, and files of their own."""
    for name in ("scripts", "align", "docs"):
        (tmp_path / name).symlink_to(runs.REPOSITORY / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "tiny").symlink_to(weights)
    mine = tmp_path / "recipes"  # where a reader adds some
    mine.mkdir()
    for file in (runs.REPOSITORY / "recipes").iterdir():
        (mine / file.name).symlink_to(file)
    rows = list(made_rows())
    for name in ("rows", "words", "words_test"):
        write(
            tmp_path / f"{name}.jsonl",
            ({"prompt": p, "completion": good, "solution": str(2 * n)} for p, good, _, n in rows),
        )
    write(
        tmp_path / "pairs.jsonl",
        ({"prompt": p, "chosen": good, "rejected": bad} for p, good, bad, _ in rows),
    )
    write(
        tmp_path / "labelled.jsonl",
        ({"prompt": p, "completion": (good, bad)[n % 2], "label": n % 2 == 0}
         for p, good, bad, n in rows),
    )  # fmt: skip
    write(
        tmp_path / "answers.jsonl",
        ({"completion": good, "solution": str(2 * n)} for _, good, _, n in rows),
    )
    texts = ("a film of much charm and wit", "a dull and tired film without a plot")
    write(
        tmp_path / "reviews" / "rows.jsonl",
        ({"text": f"{texts[n % 2]}, number {n}", "label": 1 - n % 2} for n in range(60)),
    )
    monkeypatch.setattr(recipes, "__path__", [str(mine)])
    monkeypatch.chdir(tmp_path)
    known = {name for name in sys.modules if name.startswith("recipes.")}
    yield tmp_path
    for name in {name for name in sys.modules if name.startswith("recipes.")} - known:
        del sys.modules[name]


@pytest.fixture
def server(weights):
    """What answers where a page has a vLLM server."""
    made = Learner(weights, tiny.chat_tokenizer())
    made.routes["/v1/models"] = lambda _: {"data": [{"id": "tiny", "max_model_len": 4096}]}
    yield made.url
    made.close()


def fork(reader, name, *args, ranks=1, sharded=False, codes=(0,)):
    """What a function of readme_commands printed, run in a fork of the nursery."""
    log = reader / ".log"
    log.unlink(missing_ok=True)
    hurt = [f"readme_commands.{name}", *args]
    answer = runs.nursery().run("sft", [], hurt=hurt, ranks=ranks, sharded=sharded, log=log)
    said = log.read_text()
    assert set(answer["codes"]) <= set(codes), f"{name} {args}: {answer['codes']}\n{said}"
    return said
