"""Model folders that would run code: pickles and remote code are refused unless asked for by name,
and weights that are not those that a stage wrote are noticed.
"""

import ast
import json
import os
import pickle
from pathlib import Path

import pytest
import runs
import tiny
import torch
from safetensors.torch import load_file

from align.folder import identity, write_json
from align.locate import Located, MissingError, locate
from align.models import (
    ModelError,
    check_classifier,
    load_causal_lm,
    load_config,
    load_tokenizer,
    new_classifier,
    ready,
    save,
)
from align.rollout.build import build
from align.trusted import unpickle


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.fixture
def folder(tmp_path):
    """A whole model folder, with a chat tokenizer."""
    save(tiny.model(vocab_size=100), tiny.chat_tokenizer(), tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def pickled(folder, monkeypatch, tmp_path):
    """The same with its weights as pytorch_model.bin, two of them one tensor."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    torch.save({"lr": 1}, folder / "training_args.bin")
    return folder


def _located(reference):
    return locate(str(reference), Path(), recipe="tiny")


def _edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_pickled_weights_are_refused_and_the_way_to_ask_for_them_named(pickled):
    with pytest.raises(MissingError) as caught:
        _located(pickled)
    assert "pickled ones are not read" in str(caught.value)
    assert str(caught.value).endswith(f"--model pickled:{pickled}")


@pytest.mark.parametrize("shards", [1, 2])
def test_asked_for_by_name_they_are_read_as_tensors_into_safetensors(pickled, shards):
    state = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    if shards == 2:
        (pickled / "pytorch_model.bin").unlink()
        names, index = sorted(state), {}
        for i, part in enumerate((names[:3], names[3:]), start=1):
            file = f"pytorch_model-0000{i}-of-00002.bin"
            torch.save({name: state[name] for name in part}, pickled / file)
            index |= dict.fromkeys(part, file)
        write_json(pickled / "pytorch_model.bin.index.json", {"weight_map": index})
    path = ready(_located(f"pickled:{pickled}"))
    assert not [file for file in Path(path).iterdir() if file.suffix == ".bin"]
    assert len(list(Path(path).glob("*.safetensors"))) == shards
    model = load_causal_lm(path, device="cpu")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, state[name]), name
    assert load_tokenizer(path).eos_token_id == tiny.chat_tokenizer().eos_token_id


def test_other_pickled_weights_are_another_model(pickled):
    before, first = identity(str(pickled)), ready(_located(f"pickled:{pickled}"))
    assert ready(_located(f"pickled:{pickled}")) == first
    state = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    torch.save({name: weight + 1 for name, weight in state.items()}, pickled / "pytorch_model.bin")
    assert identity(str(pickled)) != before
    assert ready(_located(f"pickled:{pickled}")) != first


@pytest.mark.parametrize("form", ["pickle", "archive", "not tensors", "cut"])
def test_a_pickle_that_runs_code_is_not_run_even_when_asked_for(pickled, form, tmp_path):
    touched, file = tmp_path / "touched", pickled / "pytorch_model.bin"
    if form == "pickle":
        file.write_bytes(pickle.dumps(Malicious(touched)))
    elif form == "archive":
        torch.save({"w": Malicious(touched)}, file)
    elif form == "not tensors":
        torch.save({"w": "a text"}, file)
    else:
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        ModelError, match=r"pytorch_model\.bin (is not a file of|does not hold) tens"
    ):
        ready(_located(f"pickled:{pickled}"))
    assert not touched.exists()
    assert not list((tmp_path / "cache" / "align" / "models").glob("*.partial"))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"w": "../secret.bin"}}, "names files outside the folder: ../secret.bin"),
        ({"weight_map": {"w": "gone.bin"}}, "gone.bin is missing"),
        (["w"], "names no files"),
    ],
)
def test_an_index_of_pickles_that_leads_elsewhere(pickled, index, said, tmp_path):
    (pickled / "pytorch_model.bin").unlink()
    write_json(pickled / "pytorch_model.bin.index.json", index)
    with pytest.raises(ModelError, match=said):
        unpickle(pickled, tmp_path / "into")


@pytest.mark.parametrize("name", ["consolidated.00.pth", "model.pt", "weights.pkl"])
def test_pickles_in_another_layout_are_refused_also_by_name(pickled, name):
    (pickled / "pytorch_model.bin").rename(pickled / name)
    for reference in (pickled, f"pickled:{pickled}"):
        with pytest.raises(MissingError) as caught:
            _located(reference)
    assert name in str(caught.value) and "convert it" in str(caught.value)


def test_where_both_are_there_safetensors_are_read(folder, tmp_path):
    touched = tmp_path / "touched"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(touched)))
    for reference in (folder, f"pickled:{folder}"):
        path = ready(_located(reference))
        assert path == str(folder)
        load_causal_lm(path, device="cpu")
    assert not touched.exists()


def test_a_repository_of_the_hub_with_pickled_weights_alone(monkeypatch, tmp_path):
    asked = []

    def download(repository, *, ignore_patterns):
        asked.append(ignore_patterns)
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr("align.cached.snapshot_download", download)
    with pytest.raises(ModelError, match="--model pickled:org/name"):
        ready(Located(kind="hub", path="org/name"))
    assert {"*.bin", "*.pt", "*.pkl", "*.pth", "*.ckpt"} <= set(asked[0])
    assert _located("pickled:org/name") == Located(kind="pickled", path="org/name")


EVIL = """
import pathlib
pathlib.Path({touched!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class EvilConfig(LlamaConfig):
    model_type = "evil"
class Evil(LlamaForCausalLM):
    config_class = EvilConfig
class EvilTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(params=["own architecture", "known architecture", "tokenizer"])
def evil(request, folder, tmp_path, monkeypatch):
    """A folder that brings code which makes a file when it is imported: (folder, file)."""
    touched = tmp_path / "touched"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    (folder / "evil.py").write_text(EVIL.format(touched=str(touched)))
    mapped = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}
    if request.param == "tokenizer":
        mapped = {"AutoTokenizer": ["evil.EvilTokenizer", None]}
        _edit(folder / "tokenizer_config.json", auto_map=mapped)
    elif request.param == "own architecture":
        _edit(folder / "config.json", auto_map=mapped, model_type="evil")
    else:
        _edit(folder / "config.json", auto_map=mapped)
    return folder, touched


def _loaders(path):
    yield lambda: load_tokenizer(path)
    yield lambda: load_config(path)
    yield lambda: load_causal_lm(path, device="cpu")
    yield lambda: check_classifier(path)
    yield lambda: new_classifier(path, tiny.chat_tokenizer(), device="cpu", seed=0)
    yield lambda: ready(Located(kind="random", path=path))
    yield lambda: ready(Located(kind="folder", path=path, layers=1))
    # Of a server, whose own folder this may not be, the tokenizer is loaded here.
    server = type("Server", (), {"kind": "server"})
    yield lambda: build(server, sampling=None, path=path, model=None, stop=[], sequences=1,
                        autocast=None)  # fmt: skip


def test_code_of_a_folders_own_is_refused_by_everything_that_loads(evil, monkeypatch, tmp_path):
    folder, touched = evil
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for load in _loaders(str(folder)):
        with pytest.raises(ModelError, match=r"auto_map in .*add --trust-remote-code True"):
            load()
    assert not touched.exists()


def test_asked_for_by_name_it_runs(evil):
    folder, touched = evil
    load_tokenizer(str(folder), trust_remote_code=True)
    load_config(str(folder), trust_remote_code=True)
    assert touched.exists()


def test_a_kernel_from_the_hub_is_code_too(folder):
    _edit(folder / "config.json", attn_implementation="someone/kernel")
    with pytest.raises(ModelError, match=r"attn_implementation in config\.json: someone/kernel"):
        load_causal_lm(str(folder), device="cpu")


def _sources():
    for package in ("align", "data", "rewards", "scripts", "recipes"):
        yield from (runs.REPOSITORY / package).rglob("*.py")


def test_nothing_in_the_sources_loads_a_pickle_unguarded():
    """Every torch.load reads tensors alone, no code is trusted for good, and pickle is the reward
    pool's, between a run and its own workers.
    """
    seen = []
    for file in _sources():
        name = file.relative_to(runs.REPOSITORY)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = {alias.name.partition(".")[0] for alias in node.names}
                barred = modules & {"pickle", "dill", "joblib", "shelve", "marshal"}
                assert not barred or name.parts[0] == "rewards", name
            if not isinstance(node, ast.Call):
                continue
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if ast.unparse(node.func).endswith(("torch.load", "load_state_dict_from_url")):
                seen.append(str(name))
                assert given.get("weights_only") is True, (name, node.lineno)
            assert given.get("trust_remote_code") is not True, (name, node.lineno)
            assert given.get("allow_pickle") is not True, (name, node.lineno)
            assert given.get("use_safetensors") is not False, (name, node.lineno)
    assert seen == ["align/trusted.py"]
