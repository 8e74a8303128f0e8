"""The KTO stage against TRL 1.16's KTOTrainer, its layouts against each other, its strangers.

TRL gives each prompt of a batch the completion of the row before it; both get their rows in the
order in which the stage visits them. The policy is moved away from the reference before the loss.
"""

import shutil

import preference_peer
import preference_stage as ours
import pytest
import runs
import tiny
import torch
import trl_peer
from preference_stage import own_cache, tiny_folder  # noqa: F401  (fixtures of this module too)
from transformers import AutoModelForCausalLM

import data
from align.config import Kto, Lora

WEIGHTS = {"desirable_weight": 1.5, "undesirable_weight": 0.75}
CASES = {"mixed": 1, "held at zero": 4}  # seeds of the move


def stage(folder, rows, **options):
    config = Kto(**ours.settings(folder, **({"beta": 0.5} | options)))
    return ours.made(config, ours.judged_rows(rows))


@pytest.mark.parametrize("weights", [{}, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_trl(case, weights, folder, tmp_path):
    rows = preference_peer.make_judged(7)
    kto = stage(folder, rows, **weights)
    trainer = preference_peer.kto_trainer(folder, tmp_path, beta=0.5, **weights)
    trl_peer.move(trainer.model, seed=CASES[case], by=0.05)
    loss, gradient = preference_peer.kto(trainer, ours.ordered(rows, kto.config))
    (point,) = trainer._metrics["train"]["kl"]

    kto, batch = ours.moved(kto, seed=CASES[case])
    assert len(batch.minibatches[0]) > 1
    got = tiny.backward(kto, batch)
    assert (point > 0.1) == (case == "mixed")
    # Seven differences of sums around 50: float32 has 4e-6 there.
    assert batch.metrics["kl"] == pytest.approx(point, abs=1e-5)
    assert got.loss == pytest.approx(loss, rel=1e-5)
    assert trl_peer.relative_distance(got.gradient, gradient) < 1e-5


def test_implicit_rewards_are_means_over_the_rows_of_one_label(folder):
    """beta times log-ratio by plain models: of the good rows, of the bad, and their difference."""
    rows = preference_peer.make_judged(7)
    kto, batch = ours.moved(stage(folder, rows))
    got = tiny.backward(kto, batch).metrics
    figures = {name: got[name] / got["rows"] for name in ("good", "chosen", "rejected")}
    kto.learned(figures)
    before = AutoModelForCausalLM.from_pretrained(folder).eval()
    rewards = {True: [], False: []}
    for row in rows:
        with torch.no_grad():
            now, then = (
                float(tiny.plain_logprobs(model, row.prompt, row.completion).sum())
                for model in (kto.context.model, before)
            )
        rewards[row.label].append(0.5 * (now - then))
    good, bad = (sum(values) / len(values) for values in (rewards[True], rewards[False]))
    assert len(rewards[True]) == 3
    assert figures == pytest.approx(
        {"chosen": good, "rejected": bad, "margin": good - bad}, rel=1e-4, abs=1e-5
    )


def test_any_budget_gives_the_padded_gradient(folder):
    kto, _ = ours.moved(stage(folder, preference_peer.make_judged(11)))
    ours.check_layouts(kto)


def test_the_references_equal_a_plain_computation(folder, cache):
    """Two epochs and a bit of five rows, three a step: of each row, and of each place's stranger;
    the same under adapters that have moved.
    """
    rows = preference_peer.make_judged(5)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for lora in (Lora(), Lora(rank=4)):
        kto = stage(folder, rows, batch=3, epochs=2.2, lora=lora)
        if lora.rank:
            shutil.rmtree(cache)  # what was kept would be read
            trl_peer.move(kto.context.model.model.layers[0].self_attn.q_proj.lora_B, seed=1, by=0.5)
        kto.prepare()
        assert (len(kto.matched), len(kto.mismatched)) == (5, 11)
        for row, found in kto.matched.items():
            check(found, model, rows[row].prompt, rows[row].completion)
        place = 0
        for step in range(1, kto.steps + 1):
            for i in range(len(kto.places(step))):
                group = kto._stranger(step, i)
                check(kto.mismatched[place], model, group.prompt, group.completions[0].ids)
                place += 1


def check(found, model, prompt, completion):
    with torch.no_grad():
        expected = tiny.plain_logprobs(model, prompt, completion)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("count", "batch", "epochs"),
    [(7, 3, 1.0), (3, 2, 3.0), (3, 6, 2.0), (2, 3, 2.0), (3, 3, 4 / 3), (4, 8, 0.25)],
    ids=["last row alone", "three epochs", "two in a step", "twice two", "one over", "one of all"],
)
def test_no_row_is_matched_with_its_own_completion(count, batch, epochs, seed, folder):
    """Not even one alone in its step, or one that comes twice in a step, or twice running."""
    rows = preference_peer.make_judged(count, labels=(True, False))
    kto = stage(folder, rows, batch=batch, epochs=epochs, seed=seed)
    completions = [row.completion for row in rows]
    assert len({tuple(ids) for ids in completions}) == count
    for step in range(1, kto.steps + 1):
        for i, place in enumerate(kto.places(step)):
            mine = rows[kto.row(place)]
            stranger = kto._stranger(step, i)
            assert list(stranger.prompt) == mine.prompt
            (other,) = stranger.completions
            assert list(other.ids) in completions
            assert list(other.ids) != mine.completion


def test_a_row_alone_in_its_step_trains(folder):
    rows = preference_peer.make_judged(7)
    kto, _ = ours.moved(stage(folder, rows, batch=3))
    batch = kto.collect(3)
    assert sum(one.sequences for one in batch.minibatches[0]) == 1
    assert tiny.backward(kto, batch).loss > 0


@pytest.mark.parametrize("label", [True, False])
def test_rows_of_one_label_are_an_error(label, folder):
    with pytest.raises(data.DataError, match="both labels"):
        stage(folder, preference_peer.make_judged(4, labels=(label,)))


def test_one_label_is_an_error_too_where_the_others_are_too_long(folder, capsys):
    rows = preference_peer.make_judged(4, labels=(True, False))
    long = [row for row in rows if not row.label]
    for row in long:
        row.completion[:] = [*range(5, 45), *range(5, 45), trl_peer.EOS]
    with pytest.raises(data.DataError, match="both labels"):
        stage(folder, rows, max_tokens=40)
    assert "dropped 2 of 4 rows longer than max_tokens=40" in capsys.readouterr().out


def test_a_data_set_with_nothing_left_is_an_error(folder):
    with pytest.raises(data.DataError, match="no row is left"):
        stage(folder, preference_peer.make_judged(4), max_tokens=3)


def test_two_processes_train_what_one_trains(tmp_path):
    """41 rows in batches of 8: the last is one row, which the first process takes. With as many
    strangers they are more than one process computes reference log-probs of at a time.
    """
    more = ["--undesirable-weight", "0.1", "--optim.lr", "1e-2"]  # the reference point leaves 0
    one, _ = ours.check_two_processes("kto", tmp_path, "--epochs", str(41 / 80), *more)
    rows = runs.rows(one / "metrics.jsonl")
    assert len(rows) == 6
    assert {"kl", "margin", "chosen", "rejected"} <= rows[0].keys()
    assert max(row["kl"] for row in rows) > 0
