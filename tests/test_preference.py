"""The DPO stage against TRL 1.16's DPOTrainer, its layouts against each other, its reference.

Both get the same weights and the same pairs; TRL pads them, the stage packs them with their prompt
once. The policy is moved away from the reference between `prepare` and the loss.
"""

import json
import math
from dataclasses import replace

import preference_peer
import preference_stage as ours
import pytest
import runs
import tiny
import torch
import trl_peer
from preference_stage import own_cache, tiny_folder  # noqa: F401  (fixtures of this module too)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

import data
from align.config import Dpo, Lora, Optim
from align.stages import reference
from align.training.optim import adamw

SMOOTHING = 0.1

# TRL's configuration and ours. TRL 1.16 has no smoothing in `sigmoid`; its `robust` loss is
# ((1 - e) R - e W) / (1 - 2 e), R and W the pair as labelled and the other way round. So cDPO's
# (1 - e) R + e W is 2 (1 - e) sigmoid - (1 - 2 e) robust, which its loss weights can express.
CASES = {
    "sigmoid": ({"loss_type": ["sigmoid"]}, {"loss_type": "sigmoid"}),
    "smoothed": (
        {
            "loss_type": ["sigmoid", "robust"],
            "loss_weights": [2 * (1 - SMOOTHING), -(1 - 2 * SMOOTHING)],
            "label_smoothing": SMOOTHING,
        },
        {"loss_type": "sigmoid", "label_smoothing": SMOOTHING},
    ),
    "ipo": ({"loss_type": ["ipo"]}, {"loss_type": "ipo"}),
    "hinge": ({"loss_type": ["hinge"]}, {"loss_type": "hinge"}),
}


def stage(folder, pairs, *, padded=False, out=None, **options):
    config = Dpo(**ours.settings(folder, **({"beta": 1.0} | options)))
    return ours.made(config, ours.pair_rows(pairs), padded=padded, out=out)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_trl(case, folder, tmp_path):
    theirs, mine = CASES[case]
    pairs = ours.make_pairs(6, seed=1)
    trainer = preference_peer.dpo_trainer(folder, tmp_path, beta=1.0, **theirs)
    trl_peer.move(trainer.model, seed=1, by=0.05)
    loss, gradient = preference_peer.dpo(trainer, pairs)

    dpo, batch = ours.moved(stage(folder, pairs, **mine))
    assert len(batch.minibatches[0]) > 1
    got = tiny.backward(dpo, batch)
    assert abs(loss - math.log(2)) > 0.01
    assert got.loss == pytest.approx(loss, rel=1e-5)
    assert trl_peer.relative_distance(got.gradient, gradient) < 1e-5
    logged = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    for name, figure in {
        "accuracy": "rewards/accuracies",
        "margin": "rewards/margins",
        "chosen": "rewards/chosen",
        "rejected": "rewards/rejected",
    }.items():
        assert got.metrics[name] / got.metrics["pairs"] == pytest.approx(
            logged[figure], rel=1e-4, abs=1e-5
        ), name


@pytest.mark.parametrize("case", CASES)
def test_any_budget_gives_the_padded_gradient(case, folder):
    dpo, _ = ours.moved(stage(folder, ours.make_pairs(7, seed=2), **CASES[case][1]))
    ours.check_layouts(dpo)


def test_an_untouched_policy_loses_ln_2(folder):
    dpo = stage(folder, ours.make_pairs(3), beta=0.5)
    dpo.prepare()
    got = tiny.backward(dpo, dpo.collect(1))
    assert got.loss == pytest.approx(math.log(2), rel=1e-6)
    assert got.metrics["accuracy"] == 0  # no pair is told apart yet


def test_ten_steps_equal_a_run_of_trls_trainer(folder, tmp_path):
    """40 pairs, 4 a step, the same order and AdamW; losses and the weights at the end."""
    pairs = ours.make_pairs(40, seed=3)
    optim = Optim(lr=1e-3, max_grad_norm=1.0)
    dpo = stage(folder, pairs, beta=0.5, batch=4, optim=optim)
    losses, trained = trl_run(folder, tmp_path / "trl", ours.ordered(pairs, dpo.config))

    dpo.prepare()
    out = tmp_path / "ours"
    out.mkdir()
    with tiny.loop(dpo, adamw(dpo.context.module, optim), out) as loop:
        assert loop.run(resume=False)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == len(rows) == 10
    assert max(losses) - min(losses) > 0.05
    assert max(row["grad_norm"] for row in rows) > 1  # some steps are clipped
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-4)
    for name, weight in dpo.context.model.state_dict().items():
        torch.testing.assert_close(weight, trained[name], rtol=1e-4, atol=1e-4)


def trl_run(folder, out, pairs):
    """Losses of each step of `DPOTrainer.train()` over these pairs in their order, and weights."""
    losses = []

    class Recording(DPOTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            losses.append(float(loss.detach()))
            return loss

    trainer = Recording(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(out),
            beta=0.5,
            per_device_train_batch_size=4,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            warmup_steps=0,
            max_grad_norm=1.0,
            save_strategy="no",
            gradient_checkpointing=False,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=ours.pair_rows(pairs),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    for row, pair in zip(trainer.train_dataset, pairs, strict=True):
        assert (row["prompt_ids"], row["chosen_ids"]) == (pair.prompt, pair.chosen)
    trainer.train()
    return losses, trainer.model.state_dict()


# The reference.


@pytest.fixture
def computed(monkeypatch):
    """How many completions the reference was computed on, a number a call."""
    calls, original = [], reference._computed

    def counting(groups, *rest):
        calls.append(sum(len(group.completions) for group in groups))
        return original(groups, *rest)

    monkeypatch.setattr(reference, "_computed", counting)
    return calls


def check_reference(dpo, model, pairs):
    """Plain log-probs of whole sequences, for every pair that will be seen."""
    assert len(dpo.reference) == len(pairs)
    for row, pair in enumerate(pairs):
        for found, ids in zip(dpo.reference[row], (pair.chosen, pair.rejected), strict=True):
            with torch.no_grad():
                expected = tiny.plain_logprobs(model, pair.prompt, ids)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_the_reference_equals_a_plain_computation(budget, folder):
    pairs = ours.make_pairs(70, seed=4)  # more than are packed together
    dpo = stage(folder, pairs, token_budget=budget)
    dpo.prepare()
    check_reference(dpo, AutoModelForCausalLM.from_pretrained(folder).eval(), pairs)


def test_the_reference_is_computed_once(folder, computed, cache):
    pairs = ours.make_pairs(5)
    first = stage(folder, pairs)
    first.prepare()
    assert computed == [10]
    (file,) = cache.iterdir()
    for again in (
        {"beta": 0.3},
        {"loss_type": "ipo", "optim": Optim(lr=1.0)},
        {"batch": 2, "epochs": 3.0},  # the same rows
    ):
        other = stage(folder, pairs, **again)
        other.prepare()
        assert computed == [10]
        for row, kept in first.reference.items():
            for mine, theirs in zip(other.reference[row], kept, strict=True):
                assert torch.equal(mine, theirs)
    assert list(cache.iterdir()) == [file]


def test_other_rows_are_computed_anew(folder, computed):
    pairs = ours.make_pairs(5)
    stage(folder, pairs).prepare()
    stage(folder, [*pairs[:4], replace(pairs[4], chosen=[7, 8, trl_peer.EOS])]).prepare()
    assert computed == [10, 10]
    stage(folder, pairs[:4]).prepare()
    assert computed == [10, 10, 8]


def test_rows_that_will_not_be_seen_are_not_computed(folder, computed):
    """Two fifths of an epoch of five rows."""
    dpo = stage(folder, ours.make_pairs(5), epochs=0.4)
    dpo.prepare()
    assert computed == [4]
    dpo.collect(1)


def test_other_weights_are_computed_anew(folder, computed, tmp_path):
    """In another folder, and in the same one once it was written again."""
    pairs = ours.make_pairs(3)
    stage(folder, pairs).prepare()
    other = trl_peer.save_tiny_model(tmp_path / "other", seed=1)
    dpo = stage(other, pairs)
    dpo.prepare()
    assert computed == [6, 6]
    check_reference(dpo, AutoModelForCausalLM.from_pretrained(other).eval(), pairs)
    file = other / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] *= 1.5
    save_file(weights, file, metadata={"format": "pt"})
    dpo = stage(other, pairs)
    dpo.prepare()
    assert computed == [6, 6, 6]
    check_reference(dpo, AutoModelForCausalLM.from_pretrained(other).eval(), pairs)


def test_the_reference_under_lora_is_the_stages_input(folder, tmp_path):
    """Also when the adapters have moved, as they have in a resumed run whose cache is gone; and
    the loss is that of TRL's two models.
    """
    pairs = ours.make_pairs(5)
    dpo = stage(folder, pairs, lora=Lora(rank=4, dropout=0.5))
    layers = [layer.self_attn.q_proj.lora_B for layer in dpo.context.model.model.layers]
    for layer in layers:
        trl_peer.move(layer, seed=1, by=0.5)
    dpo.context.module.train()
    dpo.prepare()
    assert dpo.context.module.training
    check_reference(dpo, AutoModelForCausalLM.from_pretrained(folder).eval(), pairs)
    dpo.context.module.eval()
    got = tiny.backward(dpo, dpo.collect(1))
    assert abs(got.loss - math.log(2)) > 0.01
    trained = {name for name in got.gradient if got.gradient[name].abs().max() > 0}
    assert trained and all("lora_" in name for name in trained)


def test_a_resumed_run_has_the_same_reference_and_ends_the_same(folder, tmp_path, cache):
    """Stopped after two of four steps; once with the cache, once without."""
    pairs = ours.make_pairs(8, seed=5)

    def run(out, *, until=None, resume=False):
        dpo = stage(folder, pairs, batch=2)
        dpo.prepare()
        if until:
            dpo.steps = until
        out.mkdir(exist_ok=True)
        optimizer = adamw(dpo.context.module, dpo.config.optim)
        with tiny.loop(dpo, optimizer, out) as loop:
            assert loop.run(resume=resume)
            if until:
                loop._save(until, dpo.state())
        return dpo

    whole = run(tmp_path / "whole")
    run(tmp_path / "kept", until=2)
    run(tmp_path / "gone", until=2)
    runs_ = [run(tmp_path / "kept", resume=True)]
    for file in cache.iterdir():
        file.unlink()
    runs_.append(run(tmp_path / "gone", resume=True))
    for resumed in runs_:
        for row, kept in whole.reference.items():
            for mine, theirs in zip(resumed.reference[row], kept, strict=True):
                assert torch.equal(mine, theirs)
        for name, weight in resumed.context.model.state_dict().items():
            assert torch.equal(weight, whole.context.model.state_dict()[name]), name


# Bad input, and several processes.


def test_pairs_of_equal_tokens_are_dropped_and_counted(folder, capsys):
    """Unlike texts may be the same tokens: this tokenizer splits at any white space."""
    rows = ours.pair_rows(ours.make_pairs(3)).to_list()
    rows[1] |= {"chosen": "w5 w6", "rejected": "w5   w6"}
    dpo = ours.made(Dpo(**ours.settings(folder)), rows)
    assert len(dpo.rows) == 2
    assert "dropped 1 of 3 pairs whose answers are the same tokens" in said(capsys)


def test_pairs_over_the_limit_are_dropped_and_counted(folder, capsys):
    pairs = ours.make_pairs(5)
    longest = sorted(len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in pairs)
    limit = longest[2]
    dpo = stage(folder, pairs, max_tokens=limit)
    assert len(dpo.rows) == sum(length <= limit for length in longest) == 3
    assert f"dropped 2 of 5 rows longer than max_tokens={limit}" in said(capsys)


@pytest.mark.parametrize("left", [{"max_tokens": 4}, {"rejected": "w5   w6"}])
def test_a_data_set_with_nothing_left_is_an_error(left, folder):
    rows = [{"prompt": "w2 w3 w4", "chosen": "w5 w6", "rejected": left.pop("rejected", "w7")}]
    with pytest.raises(data.DataError, match="no row is left"):
        ours.made(Dpo(**ours.settings(folder, **left)), rows)


def test_two_processes_train_what_one_trains(tmp_path):
    """13 pairs in batches of 4: the last is one pair, which the first process takes."""
    one, _ = ours.check_two_processes("dpo", tmp_path, "--epochs", str(13 / 40))
    rows = runs.rows(one / "metrics.jsonl")
    assert len(rows) == 4
    assert {"accuracy", "margin", "chosen", "rejected"} <= rows[0].keys()


def test_lora_in_two_processes(tmp_path):
    more = ["--lora.rank", "4", "--optim.lr", "1e-2", "--loss-type", "ipo"]
    ours.check_two_processes("dpo", tmp_path, "--epochs", str(5 / 40), *more)


def said(capsys):
    return " ".join(capsys.readouterr().out.split())
