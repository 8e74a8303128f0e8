"""The bench: both sides do the same work, or there is no ratio."""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
import torch
from safetensors.torch import save_file

from align.bench import rows, scoring, shapes, show
from align.bench.case import LONGEST, Case, completion_lengths, least_tokens
from align.bench.plan import Arguments, planned
from align.bench.weights import distance, keep_gradient, put_back
from align.bench.wire import Worker, WorkerError

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = "random:recipes/tiny_model"


def case(kind="update", **changes):
    return Case(kind=kind, name=kind, model="m", scratch="s", **changes)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Every kind of case that needs no launch, as small as it can be."""
    out = tmp_path_factory.mktemp("bench")
    flags = (
        f"--model {MODEL} --out {out} --alternations 2 --threads 1 --precision fp32 "
        "--only update dpo reward-model sft step --prompts 8 --groups 4 --updates 2 --count 4 "
        "--batch 2 --words 0.1 --max-tokens 512 --step-prompts 2 --step-samples 4 --step-tokens 8 "
        "--engine hf --data arithmetic?size=20 --peak-tflops 1"
    )
    done = subprocess.run(
        [sys.executable, "scripts/bench.py", *flags.split()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
    )
    log = (out / "workers.log").read_text() if (out / "workers.log").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log[-3000:]
    return json.loads((out / "bench.json").read_text()), out, done.stdout


def test_both_sides_take_the_same_step(report):
    """Gradients of the whole batch, written by the optimizers of both: equal to 1e-5."""
    cases = {one["name"]: one for one in report[0]["cases"]}
    compared = [one for one in cases.values() if one["kind"] != "step"]
    assert len(compared) == 5
    for one in compared:
        assert 0 < one["check"]["distance"] < 1e-5, one["name"]
        assert one["differs"] == "" and one["ratio"] > 0
        assert one["ours"]["timings"][0]["norms"][0] > 0
    assert len(cases["dpo"]["ours"]["timings"][0]["losses"]) == 2  # optimizer steps of a pass
    # The second pass starts from the same weights as the first.
    first, second = (timing["losses"] for timing in cases["dpo"]["trl"]["timings"])
    assert first == pytest.approx(second, rel=1e-6) and first[0] != pytest.approx(first[1])


def test_what_is_reported(report):
    about, out, said = report[0]["about"], report[1], report[2]
    assert about["versions"].keys() >= {"torch", "trl", "transformers"}
    assert about["arguments"]["alternations"] == 2 and about["machine"]["cores"]
    update = report[0]["cases"][0]
    assert [len(update[side]["timings"]) for side in ("ours", "trl")] == [2, 2]
    each = [
        theirs["seconds"] / ours["seconds"]
        for ours, theirs in zip(update["ours"]["timings"], update["trl"]["timings"], strict=True)
    ]
    assert update["ratios"] == pytest.approx(each)
    assert update["ratio"] == pytest.approx(sum(each) / 2)
    assert update["tokens"]["ours"] == update["tokens"]["least"] == 2 * (8 + 16 + 64 + 144 + 256)
    assert update["tokens"]["trl"] == 2 * 4 * (8 + 256)
    for side in ("ours", "trl"):
        assert update[side]["peak_since"] in ("begin", "process")
        assert 0 < update[side]["cores"] < 2  # of the one that it may use
    assert "cores" in said and about["machine"]["load"]
    assert update["ours"]["peak_mib"] > 50 and update["utilisation"]["ours"] > 0
    assert {one["settings"]["name"] for one in update["tried"]} > {"defaults"}
    assert "Medians" in said and (out / "updates.svg").read_text().startswith("<?xml")
    assert (out / "updates.png").stat().st_size > 5_000


def test_the_side_that_waits_does_not_compute(report):
    for one in report[0]["cases"]:
        for side in ("ours", "trl"):
            assert one[side]["waited"] < 0.05, one["name"]  # seconds of processor time


def test_a_whole_step_is_accounted_for(report):
    step = next(one for one in report[0]["cases"] if one["kind"] == "step")
    for timing in step["ours"]["timings"]:
        parts = timing["parts"]
        named = sum(parts[name] for name in ("sample", "score", "train", "sync", "own"))
        assert named == pytest.approx(timing["seconds"]) and parts["own"] > 0
        assert parts["sync"] > 0 and timing["completions"] == 8
    for timing in step["trl"]["timings"]:
        assert 0 < timing["parts"]["sample"] < timing["seconds"]
        assert 8 <= timing["generated"] <= 64


def test_every_group_of_a_whole_step_is_trained_on(report):
    """The model knows nothing of the task: without the added term no answer has an advantage."""
    step = next(one for one in report[0]["cases"] if one["kind"] == "step")
    assert step["ratio"] > 0 and "without an advantage" in report[2]
    for side in ("ours", "trl"):
        for timing in step[side]["timings"]:
            assert timing["idle_groups"] == 0 and timing["norms"][0] > 0
            assert timing["computed"] > timing["generated"]  # prompts too


def test_a_trial_of_a_step_trains_on_one_rollout(report):
    step = next(one for one in report[0]["cases"] if one["kind"] == "step")
    assert {one["settings"]["micro_batch"] for one in step["tried"]} == {2, 4, 8}
    for one in step["tried"]:
        assert len(one["timings"]) in (1, 2) and one["seconds"] == median(one["timings"])


def padded_tokens(case):
    """Every completion with its prompt, padded to the longest."""
    return case.prompts * case.group * (case.prompt + LONGEST)


def test_what_shared_prompts_can_save_at_most():
    """8 completions up to 256 at (k/8)^2: 816 tokens. 3.25 and 4.63 times is all there is."""
    assert sum(completion_lengths(8)) == 816 and max(completion_lengths(8)) == 256
    for prompt, times in ((128, 3.25), (512, 4.63)):
        one = case(prompt=prompt, group=8)
        assert padded_tokens(one) / least_tokens(one) == pytest.approx(times, abs=0.01)


@pytest.mark.parametrize("group", range(2, 65))
def test_no_completion_is_without_an_advantage(group):
    given = rows.given_rewards([None] * (2 * group), [group] * (2 * group))
    assert given[:group] == given[group:]
    mean = sum(given[:group]) / group
    assert min(abs(value - mean) for value in given) > 1e-4


def test_a_case_that_fails_is_told_and_leaves_the_worker_alive(tmp_path):
    worker = Worker("ours", threads=1, device="cpu", log=tmp_path / "log")
    broken = case(prompt=4, group=2).plain() | {"model": str(tmp_path / "nowhere")}
    try:
        with pytest.raises(WorkerError, match=r"ours: .*nowhere"):
            worker.ask("open", case=broken)
        assert worker.once("about")["torch"] == torch.__version__
    finally:
        worker.end()
    assert worker.process.returncode == 0


def test_scored_batches_repeat_answers_and_not_each_other():
    for alike, most in ((True, 4), (False, 16)):
        (completions, golds), (others, _) = (scoring.batch(turn, alike=alike) for turn in (0, 1))
        assert len(completions) == len(golds) == 128
        assert not set(completions) & set(others)
        boxes = [text.partition("boxed{")[2] for text in completions]
        distinct = [len(set(boxes[i : i + 16])) for i in range(0, 128, 16)]
        assert max(distinct) <= most
        assert alike or min(distinct) >= 12
        texts = [len(set(completions[i : i + 16])) for i in range(0, 128, 16)]
        assert 9 <= median(texts) <= 13 if alike else min(texts) == 16
        # Numbers of more than three digits are split, so tokens are a few more than these pieces.
        pieces = sorted(len(re.findall(r"\w+|[^\w\s]", text)) for text in completions)
        assert 30 < pieces[0] < 70 < pieces[64] < pieces[-1] < 200


def test_weights_come_back_and_gradients_are_compared(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    before = model.weight.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    keep_gradient(model, optimizer, str(tmp_path / "first"))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before) and optimizer.state
    put_back(model, optimizer, str(tmp_path))
    assert torch.equal(model.weight, before) and not optimizer.state
    save_file({"weight": torch.ones(2, 3), "bias": torch.ones(2) + 1}, tmp_path / "other")
    # |difference| is sqrt(2), |other| sqrt(6 + 2 * 4).
    files = str(tmp_path / "first"), str(tmp_path / "other")
    assert distance(*files) == pytest.approx((2 / 14) ** 0.5)
    save_file({"weight": torch.ones(2, 3)}, tmp_path / "less")
    with pytest.raises(ValueError, match="bias"):
        distance(files[0], str(tmp_path / "less"))


def test_flops_of_a_layer_by_hand():
    """One head of width 4 on hidden 4: projections 4*16, MLP 3*4*8, so 160 weights a layer; one
    completion of 256 tokens after a prompt of 8, a vocabulary of 10.
    """
    config = {
        "hidden_size": 4,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 10,
    }
    weights = 6 * (2 * 160 * 264 + 40 * 256)
    pairs = 8 * 8 / 2 + 256 * 8 + 256 * 256 / 2
    got = shapes.flops(config, case(prompt=8, group=1))
    assert got == weights + 12 * 2 * 4 * pairs


@pytest.mark.parametrize(("shape", "billions"), [("qwen2.5-0.5b", 0.494), ("qwen2.5-1.5b", 1.544)])
def test_shapes_are_the_models(shape, billions):
    """Parameters as their cards say, embeddings counted once."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**shapes.SHAPES[shape]))
    assert model.num_parameters() / 1e9 == pytest.approx(billions, abs=1e-3)


def test_a_half_written_report_is_never_read(tmp_path):
    show.save({"cases": [1]}, tmp_path)
    with pytest.raises(TypeError):
        show.save({"cases": [object()]}, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == {"cases": [1]}


def test_a_plan_has_every_case_once():
    arguments = Arguments(model="m", out=Path("o"))
    plan = planned(arguments, model="m", scratch=Path("s"))
    names = [one.case.name for one in plan]
    assert len(names) == len(set(names)) == 15 + 9
    for one in plan:
        assert Case.of(json.loads(json.dumps(one.case.plain()))) == one.case
        if one.case.kind == "update":
            total = one.case.group * one.case.prompts
            assert all(total % each.micro_batch == 0 for each in one.settings)
