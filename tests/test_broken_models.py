"""Model folders that are not what they were: cut, altered, of another architecture, with settings
that cannot be read.
"""

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from align.config import Sft
from align.files.folder import write_json
from align.files.locate import locate
from align.models import (
    ModelError,
    end_tokens,
    load_causal_lm,
    load_config,
    load_tokenizer,
    ready,
    save,
    stop_tokens,
    weights_hash,
)
from align.preflight import weights
from align.preflight.subject import Subject
from align.terminal.findings import Findings


@pytest.fixture
def folder(tmp_path):
    """A whole model folder, with a chat tokenizer."""
    save(tiny.model(vocab_size=100), tiny.chat_tokenizer(), tmp_path / "mine")
    return tmp_path / "mine"


def test_an_adapter_does_not_bring_another_model_along(folder):
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "someone/base"})
    with pytest.raises(ModelError, match=r"an adapter of someone/base.*merge"):
        load_causal_lm(str(folder), device="cpu")


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [_cut, Path.unlink, lambda path: path.write_text("[1]")])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_broken_file_is_an_error_with_the_folders_name(folder, name, harm):
    harm(folder / name)
    with pytest.raises(ModelError, match=str(folder)):
        load_tokenizer(str(folder))
        load_causal_lm(str(folder), device="cpu")


@pytest.fixture
def written(folder, tmp_path):
    """What a stage leaves."""
    stage = tmp_path / "run" / "sft"
    stage.mkdir(parents=True)
    folder.rename(stage / "model")
    write_json(stage / "done.json", {"weights": weights_hash(stage / "model")})
    return stage


def test_weights_that_are_not_those_that_a_stage_wrote_are_refused(written, monkeypatch):
    located = locate("@sft", written.parent, recipe="tiny")
    assert ready(located) == str(written / "model")
    file = written / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        ready(located)
    for part in ("altered since", "sha256 is", f"delete {written}", "run that stage again"):
        assert part in str(caught.value)
    monkeypatch.setenv("RANK", "1")  # one process looks for all
    ready(located)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


def _looked_at(folder):
    """What the preflight says of the weights: levels, and all words."""
    subject = Subject(
        config=Sft(model="m", data=None),
        rows=[],
        paths={"m": str(folder)},
        out=folder,
        tokenizer=tiny.chat_tokenizer(),
        model_config=load_config(str(folder)),
    )
    found = Findings()
    size = weights.check(subject, found)
    said = " ".join(each.line() for each in found.found)
    return [each.level for each in found.found], said, size.whole


def test_whole_weights_are_counted(folder):
    count = sum(p.numel() for p in tiny.model(vocab_size=100).parameters())
    assert _looked_at(folder) == ([], "", count)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda whole: POINTER, ["pointer of git-lfs", "lfs pull"]),
        (lambda whole: b"", ["cannot be read", "header"]),
        (lambda whole: whole[:100], ["cannot be read", "header"]),
        (lambda whole: whole[:-100], ["cannot be read", "incomplete"]),
        (lambda whole: b"\xff" * 100, ["cannot be read", "header"]),
    ],
    ids=["lfs", "empty", "header", "data", "noise"],
)
def test_weight_files_that_are_none(folder, harm, words):
    file = folder / "model.safetensors"
    file.write_bytes(harm(file.read_bytes()))
    levels, said, _ = _looked_at(folder)
    assert levels == ["error"]
    for word in (str(file), *words):
        assert word in said


def test_a_configuration_with_fewer_layers_than_are_stored(folder):
    stored = load_config(str(folder)).num_hidden_layers
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"num_hidden_layers": stored - 1})
    levels, said, _ = _looked_at(folder)
    assert levels == ["error"]
    assert f"model.layers.{stored - 1}." in said
    assert f"num_hidden_layers is {stored - 1}" in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", []),
        ("model.layers.0.attn.masked_bias", []),
        ("v_head.summary.weight", ["warning"]),
    ],
)
def test_tensors_that_belong_to_nothing(folder, name, expected):
    file = folder / "model.safetensors"
    save_file(load_file(file) | {name: torch.ones(2)}, file, metadata={"format": "pt"})
    levels, said, _ = _looked_at(folder)
    assert levels == expected
    assert (name in said) == bool(expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a":', "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"eos_token_id": ["x"]}', "eos_token_id in .* is 'x'"),
        ('{"eos_token_id": "<|im_end|>"}', "eos_token_id in .* is '<.im_end.>'"),
    ],
)
def test_end_tokens_that_cannot_be_read_are_named(folder, text, words):
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(ModelError, match=words) as caught:
        stop_tokens(tiny.chat_tokenizer(), str(folder))
    assert str(folder / "generation_config.json") in str(caught.value)


def test_a_model_without_settings_of_its_own_ends_as_its_tokenizer_does(folder):
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert end_tokens(str(folder)) == []
    write_json(folder / "generation_config.json", {"eos_token_id": [2, 7]})
    assert end_tokens(str(folder)) == [2, 7]
    assert stop_tokens(tiny.chat_tokenizer(), str(folder))[-1] == 7


def test_end_tokens_in_the_configuration_that_are_no_numbers(folder):
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"eos_token_id": ["x"]})
    with pytest.raises(ModelError, match=r"cannot be loaded: .*eos_token_id"):
        load_config(str(folder))
