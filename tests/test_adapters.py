"""LoRA over several stages: apart on disk, stacked or merged, and one base for four roles."""

import json
import shutil

import pytest
import runs
import tiny
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from align import adapters, models
from align.config import Lora
from align.modeling.lora import (
    TRAINED,
    active_adapters,
    adapters_off,
    add_lora,
    merged_weights,
    using,
)
from align.modeling.policy import Policy
from align.modeling.scorer import AdapterScorer, Scorer
from align.packing import Completion, Group, pack

IDS = torch.arange(5, 25)[None]
RANK = ["--lora.rank", "4", "--optim.lr", "1e-2"]
ADAPTERS = ["--critic", "adapters", "--critic-model", "", "--steps", "2"]


def _run(kind, out, *more, expect=0):
    """A stage of tiny-rlhf with adapters; what it printed."""
    args = ["--recipe", "tiny-rlhf", "--out", out, *RANK, *more]
    log = out.parent / f"{out.name}-{kind}.log"
    log.unlink(missing_ok=True)
    answer = runs.nursery().run(kind, args, log=log)
    assert answer["codes"] == [expect], log.read_text()
    return log.read_text()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """SFT with adapters; on it a reward model merged and one stacked."""
    out = tmp_path_factory.mktemp("chain") / "run"
    _run("sft", out)
    _run("reward_model", out)
    _run("reward_model", out, "--name", "stacked", "--lora.base", "stack")
    return out


def _logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def _folder(stage):
    return str(stage / "model")


def test_peft_loads_what_a_stage_left_and_gives_the_merged_model(chain):
    about = json.loads((chain / "sft" / "adapter" / "adapter.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(about["base"])
    plain = _logits(base)
    peft = PeftModel.from_pretrained(base, chain / "sft" / "adapter" / "sft")
    merged = AutoModelForCausalLM.from_pretrained(_folder(chain / "sft"))
    torch.testing.assert_close(_logits(peft), _logits(merged), rtol=1e-4, atol=1e-5)
    assert (_logits(merged) - plain).abs().max() > 1e-2


def test_peft_loads_a_reward_model_with_its_head(chain):
    stage = chain / "reward_model"
    base = AutoModelForSequenceClassification.from_pretrained(_folder(chain / "sft"), num_labels=1)
    base.config.pad_token_id = 0
    peft = PeftModel.from_pretrained(base, stage / "adapter" / "reward_model")
    merged = AutoModelForSequenceClassification.from_pretrained(_folder(stage))
    torch.testing.assert_close(_logits(peft), _logits(merged), rtol=1e-4, atol=1e-5)


def test_stacked_adapters_stand_below_the_new_one_and_are_the_reference(chain):
    found = adapters.stacked(_folder(chain / "sft"))
    model = models.load_causal_lm(found.base, device="cpu")
    for name in found.names:
        adapters.put_on(model, found, name=name, active=True)
    add_lora(model, Lora(rank=4))
    assert active_adapters(model) == ["sft", TRAINED]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".default." in name for name in trained)
    merged = AutoModelForCausalLM.from_pretrained(_folder(chain / "sft"))
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    with adapters_off(model):
        torch.testing.assert_close(_logits(model), _logits(merged), rtol=1e-4, atol=1e-5)
    assert (_logits(model) - _logits(merged)).abs().max() > 1e-2
    exported = AutoModelForCausalLM.from_pretrained(_folder(chain / "sft"))
    exported.load_state_dict(dict(merged_weights(model)))
    torch.testing.assert_close(_logits(model), _logits(exported), rtol=1e-4, atol=1e-5)


def test_stacked_and_merged_train_alike(chain):
    """The same start, the same data: what they learn differs by rounding alone."""
    _run("dpo", chain, "--name", "dpo-merge")
    _run("dpo", chain, "--name", "dpo-stack", "--lora.base", "stack")
    one, other = (runs.rows(chain / f"dpo-{how}" / "metrics.jsonl") for how in ("merge", "stack"))
    for mine, theirs in zip(one, other, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    assert abs(one[-1]["margin"]) > 1e-3
    about = json.loads((chain / "dpo-stack" / "adapter" / "adapter.json").read_text())
    assert about["names"] == ["sft", "dpo-stack"]


def test_four_roles_on_one_base_see_the_scores_of_the_reward_model_apart(chain):
    """The same rollout (one seed) is scored by adapters on the policy's base and by a copy."""
    _run("ppo", chain, *ADAPTERS)
    _run("ppo", chain, "--name", "apart", "--critic", "shared", *ADAPTERS[2:])
    one, other = (runs.rows(chain / name / "samples.jsonl") for name in ("ppo", "apart"))
    first = [(a, b) for a, b in zip(one, other, strict=True) if a["step"] == 1]
    assert first
    for mine, theirs in first:
        assert mine["completion"] == theirs["completion"]
        assert mine["parts"]["model"] == pytest.approx(theirs["parts"]["model"], abs=1e-4)
    assert len({row["parts"]["model"] for row in one}) > 1


def test_the_reward_on_a_shared_base_does_not_see_the_policy_move(chain):
    """The policy's adapter far from where it began, the score is still that of a copy apart."""
    reward = chain / "reward_model"
    base = Policy(models.load_causal_lm(_folder(chain / "sft"), device="cpu"))
    add_lora(base.model, Lora(rank=4))
    found = adapters.found(_folder(reward))
    head = adapters.put_on(base.model, found, name="reward_model", active=False)
    for name, parameter in base.model.named_parameters():
        if "lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    completions = [Completion(ids=[7, 8, 9]), Completion(ids=[10, 11])]
    (one,) = pack([Group(prompt=[4, 5, 6], completions=completions)], token_budget=50)
    apart = Scorer(models.load_classifier(_folder(reward), device="cpu"))
    with torch.no_grad():
        shared = AdapterScorer(base, found.names, head)(one)
        torch.testing.assert_close(shared, apart(one), rtol=1e-4, atol=1e-5)
        with using(base.model, TRAINED, "reward_model"):
            mixed = AdapterScorer(base, (TRAINED, "reward_model"), head)(one)
    assert (mixed - shared).abs().max() > 1e-3


def test_adapters_of_different_layers_stack(chain):
    """The export adds up what each layer has."""
    out = chain.parent / "layers"
    _run("sft", out, "--lora.target", "q_proj,v_proj")
    _run("dpo", out, "--lora.base", "stack")
    assert (out / "dpo" / "model" / "model.safetensors").is_file()


def test_a_stage_stacked_on_one_of_its_own_name_keeps_both(chain):
    first, second = chain.parent / "first", chain.parent / "second"
    shutil.copytree(chain / "sft", first / "sft")
    _run("dpo", first)
    _run("dpo", second, "--lora.base", "stack", "--model", first / "dpo" / "model")
    about = json.loads((second / "dpo" / "adapter" / "adapter.json").read_text())
    assert about["names"] == ["dpo", "dpo-2"]
    merged = AutoModelForCausalLM.from_pretrained(_folder(second / "dpo"))
    found = adapters.stacked(_folder(second / "dpo"))
    model = models.load_causal_lm(found.base, device="cpu")
    for name in found.names:
        adapters.put_on(model, found, name=name, active=True)
    torch.testing.assert_close(_logits(model), _logits(merged), rtol=1e-4, atol=1e-5)


def test_a_reward_model_is_no_policy(chain):
    said = _run("dpo", chain, "--name", "odd", "--model", "@reward_model", expect=2)
    assert "is a classifier, such as a reward model, and writes no text" in said


def test_a_stacked_reward_model_serves_a_stacked_policy(chain):
    on = ["--lora.base", "stack", *ADAPTERS]
    out = chain.parent / "stack"
    shutil.copytree(chain / "sft", out / "sft")
    _run("reward_model", out, "--lora.base", "stack")
    _run("ppo", out, *on)
    assert runs.rows(out / "ppo" / "metrics.jsonl")[0]["kl"] == pytest.approx(0.0, abs=1e-5)


def test_a_reward_model_on_another_base_is_refused(chain):
    out = chain.parent / "mixed"
    shutil.copytree(chain / "sft", out / "sft")
    _run("reward_model", out, "--lora.base", "stack")
    said = _run("ppo", out, *ADAPTERS, expect=2)
    assert "is not adapters on" in said
    assert "--critic separate" in said


def test_stacking_on_a_model_trained_in_full_is_refused(chain):
    full = chain.parent / "full"
    _run("sft", full, "--lora.rank", "0")
    said = _run("dpo", full, "--lora.base", "stack", expect=2)
    assert "has no adapters beside it" in said
    assert "--lora.base merge" in said


def test_a_base_that_has_changed_is_refused(chain):
    """Also where only the weights differ: the reference would be another model."""
    out = chain.parent / "changed"
    shutil.copytree(chain, out)
    about = out / "sft" / "adapter" / "adapter.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"weights": "others"}))
    said = _run("dpo", out, "--name", "again", "--lora.base", "stack", expect=2)
    assert "which has other weights now" in said


def test_a_stage_is_not_resumed_from_another_input(chain):
    out = chain.parent / "input"
    shutil.copytree(chain / "sft", out / "sft")
    _run("dpo", out)
    (out / "dpo" / "done.json").unlink()
    done = out / "sft" / "done.json"
    done.write_text(json.dumps(json.loads(done.read_text()) | {"weights": "others"}))
    said = _run("dpo", out, "--resume", expect=2)
    assert "what @sft wrote has changed" in said


def test_the_order_of_adapters_does_not_touch_what_trains():
    """A critic's adapter beside the policy's: both train, the policy's alone is active."""
    model = tiny.model()
    add_lora(model, Lora(rank=2))
    add_lora(model, Lora(rank=2), name="critic")
    assert active_adapters(model) == [TRAINED]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {name.split(".")[-2] for name in trained} == {"default", "critic"}
    assert not any("base_layer" in name for name in trained)
