"""`layers:N:REFERENCE`: a student made of some of a model's layers, once for each source."""

import dataclasses
import re

import pytest
import tiny
import torch
import trl_peer
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig

from align import models
from align.files.folder import weights_of, write_json
from align.files.locate import MissingError, locate
from align.layers import kept_layers, with_layers
from align.models import ModelError, ready, save, weights_hash

IDS = torch.tensor([[3, 9, 17, 5, 30]])
LAYERS = 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def model(config=LlamaConfig, **changes):
    return tiny.model(config, num_hidden_layers=LAYERS, **changes)


def stage(run, name, built):
    """A run folder in which that stage has written this model."""
    folder = run / name / "model"
    save(built, trl_peer.tiny_tokenizer(), folder)
    write_json(folder.parent / "done.json", {"weights": weights_hash(folder)})
    return folder


def found(reference, run):
    return locate(reference, run, recipe="tiny")


@pytest.mark.parametrize(
    ("layers", "keep", "expected"),
    [
        (5, 3, [0, 2, 4]),
        (6, 2, [0, 5]),
        (4, 4, [0, 1, 2, 3]),
        (7, 1, [0]),
        (10, 4, [0, 3, 6, 9]),
        (30, 14, [0, 2, 4, 7, 9, 11, 13, 16, 18, 20, 22, 25, 27, 29]),
    ],
)
def test_layers_kept_are_evenly_spread_with_the_ends(layers, keep, expected):
    assert kept_layers(layers, keep) == expected


@pytest.mark.parametrize("layers", [2, 12, 30])
def test_no_layer_is_kept_twice(layers):
    for keep in range(2, layers + 1):
        kept = kept_layers(layers, keep)
        assert sorted(set(kept)) == kept
        assert (len(kept), kept[0], kept[-1]) == (keep, 0, layers - 1)


def test_the_weights_are_those_of_the_layers_kept():
    teacher = model()
    student = with_layers(teacher, 3)
    assert student.config.num_hidden_layers == 3 == len(student.model.layers)
    theirs, original = teacher.state_dict(), {"0": "0", "1": "2", "2": "4"}
    for name, tensor in student.state_dict().items():
        source = re.sub(r"layers\.(\d)", lambda found: f"layers.{original[found[1]]}", name)
        assert torch.equal(tensor, theirs[source]), name
        assert tensor.data_ptr() != theirs[source].data_ptr()


@pytest.mark.parametrize("config", [LlamaConfig, GPT2Config])
def test_the_student_computes_what_the_teacher_would_without_the_other_layers(config):
    teacher = model(config)
    student = with_layers(teacher, 3).eval()
    got = student(IDS).logits
    stack = teacher.model if config is LlamaConfig else teacher.transformer
    part = "layers" if config is LlamaConfig else "h"
    setattr(stack, part, torch.nn.ModuleList([getattr(stack, part)[i] for i in (0, 2, 4)]))
    teacher.config.num_hidden_layers = 3
    torch.testing.assert_close(got, teacher(IDS, use_cache=False).logits, rtol=0, atol=0)


def test_lists_with_an_entry_a_layer_lose_the_others():
    kinds = ["sliding_attention"] * 4 + ["full_attention"]
    teacher = model(Gemma3TextConfig, head_dim=8, layer_types=kinds, eos_token_id=[1, 2, 3, 4, 5])
    config = with_layers(teacher, 3).config
    assert config.layer_types == ["sliding_attention", "sliding_attention", "full_attention"]
    assert config.eos_token_id == [1, 2, 3, 4, 5]
    assert teacher.config.layer_types == kinds


def test_a_folder_with_all_its_layers_is_the_original(tmp_path):
    original = tiny.model(LlamaConfig, tie_word_embeddings=True)
    stage(tmp_path, "sft", original)
    path = ready(found("layers:2:@sft", tmp_path))
    loaded = AutoModelForCausalLM.from_pretrained(path).eval()
    torch.testing.assert_close(loaded(IDS).logits, original(IDS).logits, rtol=0, atol=0)
    assert models.load_tokenizer(path).get_vocab() == trl_peer.tiny_tokenizer().get_vocab()


def test_half_of_smollm2_has_at_most_60_percent_of_its_parameters():
    """By its shape alone, without memory for the weights."""
    shape = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
    sizes = {}
    for layers in (30, 14, 15):
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(
                LlamaConfig(**shape, **heads, num_hidden_layers=layers)
            )
        sizes[layers] = built.num_parameters()
    assert sizes[30] == 134_515_008  # SmolLM2-135M
    assert sizes[14] <= 0.6 * sizes[30] < sizes[15]


def test_it_is_made_once_for_a_source_and_anew_for_another(tmp_path):
    stage(tmp_path, "sft", model())
    reference = "layers:3:@sft"
    first = ready(found(reference, tmp_path))
    written = (tmp_path / "cache").rglob("model.safetensors")
    times = {file: file.stat().st_mtime_ns for file in written}
    assert ready(found(reference, tmp_path)) == first
    assert {file: file.stat().st_mtime_ns for file in times} == times and len(times) == 1
    assert ready(found("layers:2:@sft", tmp_path)) != first
    assert AutoConfig.from_pretrained(first).num_hidden_layers == 3

    trained = model()
    trained.model.norm.weight.data += 1
    stage(tmp_path, "sft", trained)  # the same place, other weights
    second = ready(found(reference, tmp_path))
    assert second != first
    norm = AutoModelForCausalLM.from_pretrained(second).model.norm.weight
    assert torch.equal(norm, trained.model.norm.weight)


def test_what_a_student_is_evaluated_as_is_not_the_whole_model(tmp_path):
    stage(tmp_path, "sft", model())
    whole, part = (found(text, tmp_path) for text in ("@sft", "layers:3:@sft"))
    assert part == dataclasses.replace(whole, layers=3)
    other = found("layers:2:@sft", tmp_path)
    assert len({weights_of(one) for one in (whole, part, other)}) == 3


def test_the_prefix_goes_for_every_alternative(tmp_path):
    for reference in ("layers:3:@none | @sft", "layers:3: @sft|@none", " layers:3:./none | @sft"):
        stage(tmp_path, "sft", model())
        assert found(reference, tmp_path).layers == 3
    random = found("layers:1:./none | random:recipes/tiny_model", tmp_path)
    assert (random.kind, random.layers) == ("random", 1)
    assert AutoConfig.from_pretrained(ready(random)).num_hidden_layers == 1


@pytest.mark.parametrize("keep", ["0", "-1", "two", "1.5", "", "2:layers:3"])
def test_a_number_that_is_none_is_refused_before_any_work(keep, tmp_path):
    with pytest.raises(MissingError, match=r"is no number of layers; .* --model layers:14:@sft"):
        found(f"layers:{keep}:@sft", tmp_path)


def test_more_layers_than_there_are_is_refused(tmp_path):
    stage(tmp_path, "sft", model())
    with pytest.raises(ModelError, match=r"no student of 6 layers of .*: it has 5 layers"):
        ready(found("layers:6:@sft", tmp_path))
    assert not list((tmp_path / "cache").rglob("config.json"))
