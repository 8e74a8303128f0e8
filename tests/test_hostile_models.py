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

from align.files.folder import identity, write_json
from align.files.locate import Located, MissingError, locate
from align.files.trusted import unpickle
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

    monkeypatch.setattr("align.files.cached.snapshot_download", download)
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


PICKLING = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# Between a run and its own workers.
PICKLED = ("rewards/batch.py", "rewards/pool.py", "rewards/zygote.py")
LOADS = ("torch.load", "torch.serialization.load", "load_state_dict_from_url")
NEVER = ("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "read_pickle",
         "yaml.load", "yaml.unsafe_load", "yaml.full_load")  # fmt: skip
UNSAFE = {"weights_only": False, "use_safetensors": False, "trust_remote_code": True,
          "allow_pickle": True}  # fmt: skip


def _names(tree):
    """What each name that a module imports stands for: `load` for `torch.load`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _settings(tree):
    """Every name that is given a plain value: by keyword, default, assignment or in a dict."""
    for node in ast.walk(tree):
        pairs = []
        if isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Dict):
            pairs = [
                (getattr(key, "value", None), v)
                for key, v in zip(node.keys, node.values, strict=True)
            ]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            pairs = [(getattr(t, "id", getattr(t, "attr", None)), node.value) for t in targets]
        elif isinstance(node, ast.arguments):
            given = [*node.posonlyargs, *node.args]
            pairs = list(zip(reversed(given), reversed(node.defaults), strict=False))
            pairs += list(zip(node.kwonlyargs, node.kw_defaults, strict=True))
            pairs = [(argument.arg, value) for argument, value in pairs]
        for name, value in pairs:
            yield name, getattr(value, "value", None)


def _calls(tree):
    """Every call with the whole name of what is called."""
    names = _names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, dot, rest = ast.unparse(node.func).partition(".")
            yield f"{names.get(head, head)}{dot}{rest}", node


def _unguarded(tree, name):
    """What loads a pickle, or trusts code for good, in a module of that name."""
    found = [f"{name}={value}" for name, value in _settings(tree) if UNSAFE.get(name, ...) is value]
    imported = {module.partition(".")[0] for module in _names(tree).values()}
    for called, node in _calls(tree):
        imported |= {
            argument.value
            for argument in node.args
            if called in ("importlib.import_module", "__import__")
            and isinstance(argument, ast.Constant)
        }
        given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if called.endswith(LOADS) and given.get("weights_only") is not True:
            found.append(called)
        if called.endswith(NEVER):
            found.append(called)
    return found + ([] if name in PICKLED else sorted(imported & PICKLING))


def test_nothing_in_the_sources_loads_a_pickle_unguarded():
    """Every torch.load reads tensors alone, no code is trusted for good, and pickle is the reward
    pool's, between a run and its own workers.
    """
    loading = []
    for file in _sources():
        tree, name = ast.parse(file.read_text()), str(file.relative_to(runs.REPOSITORY))
        assert _unguarded(tree, name) == [], name
        loading += [name for called, _ in _calls(tree) if called.endswith(LOADS)]
    assert loading == ["align/files/trusted.py"]


UNGUARDED = (
    "import pickle",
    "import pickle as p",
    "from pickle import loads",
    "def f():\n    import _pickle",
    "from joblib import load",
    "import importlib\nimportlib.import_module('pickle')",
    "__import__('marshal')",
    "import torch\ntorch.load('x')",
    "import torch\ntorch.load('x', weights_only=False)",
    "import torch\ntorch.load('x', weights_only=asked)",
    "import torch\ntorch.load('x', **options)",
    "import torch as t\nt.load('x')",
    "from torch import load\nload('x')",
    "from torch.serialization import load as read\nread('x')",
    "import torch\ntorch.hub.load_state_dict_from_url('x')",
    "import torch\ntorch.jit.load('x')",
    "import torch\ntorch.hub.load('x', 'y')",
    "import pandas as pd\npd.read_pickle('x')",
    "import yaml\nyaml.load('x')",
    "import numpy as np\nnp.load('x', allow_pickle=True)",
    "load('x', trust_remote_code=True)",
    "options = {'trust_remote_code': True}",
    "trust_remote_code = True",
    "def load(path, *, trust_remote_code: bool = True): pass",
    "class Stage:\n    trust_remote_code: bool = True",
    "load('x', use_safetensors=False)",
)


@pytest.mark.parametrize("code", UNGUARDED)
def test_what_would_is_seen(code):
    assert _unguarded(ast.parse(code), "align/models.py")


@pytest.mark.parametrize(
    "code",
    [
        "import json\njson.load('x')",
        "import torch\ntorch.load('x', weights_only=True)",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "load('x', trust_remote_code=trust_remote_code)",
        "class Stage:\n    trust_remote_code: bool = False",
    ],
)
def test_what_would_not_is_let_be(code):
    assert _unguarded(ast.parse(code), "align/models.py") == []
