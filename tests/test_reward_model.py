"""The reward-model stage: TRL 1.16's loss and gradient, an export that transformers reads as we do,
and a judgement on pairs that were kept out.
"""

import json
import math

import preference_peer
import preference_stage as ours
import pytest
import runs
import tiny
import torch
import trl_peer
from preference_stage import own_cache, tiny_folder  # noqa: F401  (fixtures of this module too)
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import data
from align.config import Lora, Optim, RewardModel
from align.objectives.ranking import bradley_terry
from align.stages.calibration import calibration
from align.stages.checks import checked_rows
from align.training.optim import adamw

# TRL's configuration, ours, and whether the rows have a margin.
CASES = {
    "plain": ({}, {}, False),
    "margin": ({}, {"margin": True}, True),
    "centred": ({"center_rewards_coefficient": 0.3}, {"center": 0.3}, False),
    "both": ({"center_rewards_coefficient": 0.3}, {"center": 0.3, "margin": True}, True),
}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """A tiny classifier with a head of its own, which a stage goes on training."""
    return preference_peer.save_tiny_scorer(tmp_path_factory.mktemp("scorer") / "model")


def stage(folder, pairs, *, out=None, **options):
    config = RewardModel(**ours.settings(folder, **({"holdout": 0.0} | options)))
    return ours.made(config, ours.pair_rows(pairs), out=out)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_trl(case, scorer, tmp_path):
    theirs, mine, margins = CASES[case]
    pairs = ours.make_pairs(6, seed=1, margins=margins)
    trainer = preference_peer.reward_trainer(scorer, tmp_path, **theirs)
    trl_peer.move(trainer.model, seed=1, by=0.05)
    loss, gradient = preference_peer.reward(trainer, pairs)

    rm, batch = ours.moved(stage(scorer, pairs, **mine))
    assert len(batch.minibatches[0]) > 1
    got = tiny.backward(rm, batch)
    assert abs(loss - math.log(2)) > 0.01
    assert got.loss == pytest.approx(loss, rel=1e-5)
    assert trl_peer.relative_distance(got.gradient, gradient) < 1e-5


@pytest.mark.parametrize("case", ["plain", "both"])
def test_any_budget_gives_the_padded_gradient(case, scorer):
    pairs = ours.make_pairs(7, seed=2, margins=True)
    rm, _ = ours.moved(stage(scorer, pairs, **CASES[case][1]))
    ours.check_layouts(rm)


def test_figures_are_means_over_the_pairs(scorer):
    pairs = ours.make_pairs(7, seed=2)
    rm, batch = ours.moved(stage(scorer, pairs))
    got = tiny.backward(rm, batch).metrics
    scores = classified(rm.context.model, pairs)
    gaps = [chosen - rejected for chosen, rejected in scores]
    assert got["pairs"] == 7
    assert got["accuracy"] == sum(gap > 0 for gap in gaps)
    assert 0 < got["accuracy"] < 7
    assert got["margin"] == pytest.approx(sum(gaps), rel=1e-4)
    assert got["score"] == pytest.approx(sum(map(sum, scores)) / 2, rel=1e-4, abs=1e-4)


def classified(model, pairs):
    """The model's own logits of each pair, a sequence at a time without padding."""
    with torch.no_grad():
        return [
            [model(torch.tensor([pair.prompt + ids])).logits.item() for ids in both(pair)]
            for pair in pairs
        ]


def both(pair):
    return (pair.chosen, pair.rejected)


# The export.


def with_tokenizer(folder, out, pad):
    """A copy of the model whose tokenizer has this pad token."""
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(out)
    tokenizer = trl_peer.tiny_tokenizer()
    tokenizer.pad_token = pad
    tokenizer.save_pretrained(out)
    return out


@pytest.mark.parametrize("lora", [Lora(), Lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("pad", ["<pad>", "<eos>", None], ids=["own pad", "pad is end", "no pad"])
def test_transformers_reads_the_export_as_we_do(pad, lora, folder, tmp_path):
    source = with_tokenizer(folder, tmp_path / "in", pad)
    pairs = [
        preference_peer.Pair(**(vars(pair) | {"margin": float(i)}))
        for i, pair in enumerate(ours.make_pairs(12, seed=3))
        if len(pair.chosen) > 1 and len(pair.rejected) > 1  # more than the end token
    ]
    assert len(pairs) > 4
    rm = stage(source, pairs, margin=True, lora=lora)
    trained = {name for name, p in rm.context.model.named_parameters() if p.requires_grad}
    for name in sorted(trained):
        trl_peer.move(
            torch.nn.ParameterList([rm.context.model.get_parameter(name)]), seed=1, by=0.3
        )
    expected = packed_scores(rm, pairs)
    rm.save(tmp_path / "out" / "model")

    read = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert read.config.num_labels == 1
    texts = [
        f"{ours.words(pair.prompt)} {ours.words(ids)} <eos>" for pair in pairs for ids in both(pair)
    ]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    assert (batch["attention_mask"] == 0).any()
    with torch.no_grad():
        found = read(**batch).logits
    assert found.shape == (len(texts), 1)
    assert found[:, 0].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert max(expected) - min(expected) > 0.1


def packed_scores(rm, pairs):
    """Chosen and rejected of each pair in order, from the stage's packs; margins tell pairs."""
    found = {}
    with torch.no_grad():
        for one in rm.collect(1).minibatches[0]:
            scores = rm.context.module(one).tolist()
            for i, margin in enumerate(one.per_sequence("margin").tolist()):
                found[margin, i % 2] = scores[i]
    return [found[pair.margin, side] for pair in pairs for side in (0, 1)]


def test_the_head_is_drawn_from_the_seed(folder):
    """N(0, 1/(H + 1)): 32 states, so a deviation of 0.174."""
    pairs = ours.make_pairs(2)
    heads = [stage(folder, pairs, seed=s).context.model.score.weight for s in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (1, 32)
    assert 0.1 < heads[0].std().item() < 0.25


# Pairs that were kept out.


def test_heldout_json_counts_what_the_model_says(scorer, tmp_path):
    pairs = ours.make_pairs(30, seed=4)
    rm = stage(scorer, pairs, holdout=0.4, out=tmp_path)
    rm.finish()
    found = json.loads((tmp_path / "heldout.json").read_text())
    kept_out = [preference_peer.Pair(prompt=pair.prompt, chosen=list(pair.chosen.ids),
                rejected=list(pair.rejected.ids)) for pair in rm.heldout]  # fmt: skip
    gaps = [c - r for c, r in classified(rm.context.model, kept_out)]
    right = sum(gap > 0 for gap in gaps)
    assert (found["pairs"], found["successes"]) == (12, right)
    assert 0 < right < 12
    assert found["accuracy"] == right / 12
    # Wilson's interval at 95 %.
    z, n, p = 1.959964, 12, right / 12
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert (found["low"], found["high"]) == pytest.approx((middle - half, middle + half), abs=1e-6)
    loss = bradley_terry(chosen=torch.tensor(gaps), rejected=torch.zeros(12)).mean().item()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert sum(each["pairs"] for each in found["bins"]) == 12


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_heldout_json_does_not_depend_on_the_packs(budget, scorer, tmp_path):
    rm = stage(scorer, ours.make_pairs(30, seed=4), holdout=0.4, token_budget=budget, out=tmp_path)
    rm.finish()
    found = json.loads((tmp_path / "heldout.json").read_text())
    other = stage(scorer, ours.make_pairs(30, seed=4), holdout=0.4, token_budget=70, out=tmp_path)
    other.finish()
    check_alike(found, json.loads((tmp_path / "heldout.json").read_text()))


def check_alike(found, expected):
    bins, others = found.pop("bins"), expected.pop("bins")
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(bins) == len(others)
    for mine, theirs in zip(bins, others, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


def test_pairs_kept_out_are_not_trained_on(scorer):
    """Nor those that share an answer with one of them, under the same prompt."""
    pairs = ours.make_pairs(20, seed=5)
    twins = [
        preference_peer.Pair(prompt=p.prompt, chosen=p.rejected, rejected=[9, 9, trl_peer.EOS])
        for p in pairs
    ]
    rm = stage(scorer, pairs + twins, holdout=0.25, batch=4)
    assert len(rm.heldout) == 10
    judged = {answer for pair in rm.heldout for answer in answers(pair)}
    trained = {answer for pair in rm.rows for answer in answers(pair)}
    assert not judged & trained
    assert len(rm.rows) < 30  # some shared an answer
    seen = sum(
        one.sequences for step in range(1, rm.steps + 1) for one in rm.collect(step).minibatches[0]
    )
    assert seen == 2 * len(rm.rows)
    again = stage(scorer, pairs + twins, holdout=0.25)
    assert [answers(pair) for pair in again.heldout] == [answers(pair) for pair in rm.heldout]
    other = stage(scorer, pairs + twins, holdout=0.25, seed=1)
    assert [answers(pair) for pair in other.heldout] != [answers(pair) for pair in rm.heldout]


def answers(pair):
    return [(*pair.prompt, *one.ids) for one in (pair.chosen, pair.rejected)]


def test_where_every_pair_is_kept_out_it_is_an_error(scorer):
    with pytest.raises(data.DataError, match=r"--holdout 0.5 of 2 pairs leaves none"):
        stage(scorer, ours.make_pairs(1) * 2, holdout=0.5)


def test_no_pairs_kept_out_write_no_judgement(scorer, tmp_path):
    stage(scorer, ours.make_pairs(3), out=tmp_path).finish()
    assert list(tmp_path.iterdir()) == []


def test_calibration_of_one_confidence_by_hand():
    """Every pair given odds of 3 to 1 for the preferred answer, put in either order: those asked
    with it first are given 0.75 and it is the better, the others 0.25 and it is not.
    """
    found = calibration([math.log(3)] * 40, seed=0)
    low, high = found["bins"]
    assert (low["predicted"], high["predicted"]) == pytest.approx((0.25, 0.75))
    assert (low["right"], high["right"]) == (0.0, 1.0)
    assert low["pairs"] + high["pairs"] == 40
    assert 8 < low["pairs"] < 32  # by lot
    assert found["expected_calibration_error"] == pytest.approx(0.25)


def test_a_calibrated_scorer_has_no_error_and_one_too_sure_has():
    """Three of four pairs are ordered rightly. Odds of 3 to 1 say that; 99 to 1 say too much: 0.99
    against 0.75, in both orders.
    """

    def error(odds):
        margins = [math.log(odds) if i % 4 else -math.log(odds) for i in range(8000)]
        return calibration(margins, seed=0)

    honest, sure = error(3.0), error(99.0)
    for each in honest["bins"]:
        assert each["low"] < each["predicted"] < each["high"]
    assert honest["expected_calibration_error"] < 0.02
    assert sure["expected_calibration_error"] == pytest.approx(0.24, abs=0.02)


def test_bins_hold_their_tenth_and_extremes_fall_inside():
    """Probabilities 0.05, 0.15, ... each asked in its own order; and margins beyond exp's range."""
    margins = [math.log(p / (1 - p)) for p in (0.05, 0.15, 0.25, 0.35, 0.45)]
    found = calibration([*margins, 1e4, -1e4, 0.0], seed=0)
    assert sum(each["pairs"] for each in found["bins"]) == 8
    for each in found["bins"]:
        assert 0.0 <= each["predicted"] <= 1.0
        assert each["low"] <= each["right"] <= each["high"]
    tenths = [min(9, int(each["predicted"] * 10)) for each in found["bins"]]
    assert tenths == sorted(set(tenths))


# Training, bad input, several processes.


def test_it_learns_which_of_two_words_is_the_better(folder, tmp_path):
    """Answers with w7 are preferred to those with w8; the pairs kept out show it, and the exported
    model is what was judged.
    """
    draw = torch.Generator().manual_seed(0)

    def answer(word):
        ids = torch.randint(10, 48, (4,), generator=draw).tolist()
        return [*ids[:2], word, *ids[2:], trl_peer.EOS]

    pairs = [
        preference_peer.Pair(prompt=[2, 3], chosen=answer(7), rejected=answer(8)) for _ in range(48)
    ]
    optim = Optim(lr=3e-3)
    rm = stage(folder, pairs, holdout=0.25, batch=12, epochs=6, optim=optim, out=tmp_path)
    with tiny.loop(rm, adamw(rm.context.module, optim), tmp_path) as loop:
        assert loop.run(resume=False)
    rm.finish()
    found = json.loads((tmp_path / "heldout.json").read_text())
    assert (found["pairs"], found["successes"]) == (12, 12)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.2 < rows[0]["loss"]
    assert rows[-1]["accuracy"] == 1.0
    assert {"margin", "score", "tokens", "lr", "grad_norm"} <= rows[-1].keys()


def test_pairs_of_equal_tokens_are_dropped_and_counted(scorer, capsys):
    rows = ours.pair_rows(ours.make_pairs(3)).to_list()
    rows[1] |= {"chosen": "w5 w6", "rejected": "w5   w6"}
    rm = ours.made(RewardModel(**ours.settings(scorer, holdout=0.0)), rows)
    assert len(rm.rows) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "dropped 1 of 3 pairs whose answers are the same tokens" in said


def test_pairs_over_the_limit_are_dropped_and_counted(scorer, capsys):
    pairs = ours.make_pairs(5)
    lengths = [len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in pairs]
    limit = sorted(lengths)[2]
    rm = stage(scorer, pairs, max_tokens=limit)
    assert len(rm.rows) == sum(length <= limit for length in lengths) == 3
    assert f"dropped 2 of 5 rows longer than max_tokens={limit}" in capsys.readouterr().out


def test_answers_of_pad_tokens_alone_are_dropped_and_counted(folder, tmp_path, capsys):
    """Where pad and end token are one the classifier reads nothing of an empty answer."""
    source = with_tokenizer(folder, tmp_path / "in", "<eos>")
    rows = ours.pair_rows(ours.make_pairs(3)).to_list()
    rows[1] |= {"chosen": "w5 w6", "rejected": " "}
    rm = ours.made(RewardModel(**ours.settings(source, holdout=0.0)), rows)
    assert len(rm.rows) == 2
    assert "dropped 1 of 3 pairs" in capsys.readouterr().out


def test_a_data_set_with_nothing_left_is_an_error(scorer):
    with pytest.raises(data.DataError, match="no row is left"):
        stage(scorer, ours.make_pairs(3), max_tokens=3)


def test_margin_without_its_column_is_an_error(scorer, tmp_path):
    pairs = ours.make_pairs(3)
    file = tmp_path / "rows.jsonl"
    ours.pair_rows(pairs).to_json(file)
    rows = data.resolve(str(file))
    config = RewardModel(**ours.settings(scorer, margin=True) | {"data": rows})
    with pytest.raises(data.DataError, match="--margin needs a column margin; there are: prompt"):
        checked_rows(config)
    ours.pair_rows(ours.make_pairs(3, margins=True)).to_json(file)
    assert checked_rows(config).column_names[-1] == "margin"


def test_two_processes_train_what_one_trains(tmp_path):
    """32 pairs are left to train on; 13 of them in batches of 4: the last is one pair, which the
    first process takes.
    """
    one, two = ours.check_two_processes("reward_model", tmp_path, "--epochs", str(13 / 32))
    assert len(runs.rows(one / "metrics.jsonl")) == 4
    found, expected = (json.loads((each / "heldout.json").read_text()) for each in (two, one))
    assert expected["pairs"] == 8
    check_alike(found, expected)
    head = load_file(one / "model" / "model.safetensors")["score.weight"]
    assert head.shape == (1, 64)
