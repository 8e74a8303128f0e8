"""The trial before the first step: what it names, and that it leaves nothing behind."""

import dataclasses
import functools
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import runs

from align import recipe
from align.config import Grpo
from align.preflight import sampled, worth
from align.preflight.sampled import Seen
from align.terminal.findings import Findings

MODEL = ["--model", "random:recipes/tiny_model"]
GRPO = ["--recipe", "tiny", *MODEL, "--steps", "3"]
RLHF = ["--recipe", "tiny-rlhf", *MODEL]
DISTILL = ["--recipe", "tiny-distill", "--model", "layers:1:random:recipes/tiny_model"]
DISTILL += ["--teacher", "random:recipes/tiny_model", "--steps", "3"]


@functools.cache
def reward_model():
    """A folder with the reward model that PPO scores by."""
    out = Path(tempfile.mkdtemp(dir=runs.environment()["XDG_CACHE_HOME"]))
    go("reward_model", [*RLHF, "--epochs", "0.2"], out)
    return out / "reward_model"


def go(kind, args, out, *, code=0, trial=True, ranks=1, **more):
    """The log of a run that ends with this code, of all processes."""
    out.mkdir(parents=True, exist_ok=True)
    log = out.with_name(f"{out.name}.log")
    answer = runs.nursery().run(
        kind, [*args, "--out", out], log=log, trial=trial, ranks=ranks, **more
    )
    said = "".join(each.read_text() for each in sorted(log.parent.glob(f"{log.name}*")))
    assert answer["codes"] == [code] * ranks, said
    return said


def errors(said):
    """The findings that stopped a run, without what came before them."""
    _, _, after = said.partition("error: ")
    return [line.removeprefix("error: ") for line in after.splitlines()]


TRACELESS = {
    "sft": ("sft", ["--recipe", "tiny", *MODEL]),
    "grpo": (
        "grpo",
        [*GRPO, "--minibatches", "2", "--iterations", "2", "--beta", "0.1", "--lora.rank", "4",
         "--lora.dropout", "0.2", "--optim.lr", "1e-2"],
    ),
    "grpo, 1 prompt": ("grpo", [*GRPO, "--prompts", "1", "--compute.layout", "padded"]),
    "ppo": ("ppo", [*RLHF, "--steps", "3"]),
    "dpo": ("dpo", [*RLHF, "--epochs", "0.4"]),
    "kto": ("kto", [*RLHF, "--epochs", "0.6"]),
    "reward model": ("reward_model", [*RLHF, "--epochs", "0.4"]),
    "distill": ("distill", DISTILL),
    "distill, the data alone": (
        "distill", [*DISTILL, "--on-policy", "0", "--sampling.max-tokens", "128"],
    ),
}  # fmt: skip


def traceless(case, folder, **more):
    """The same weights and the same figures as a run without a trial."""
    kind, args = TRACELESS[case]
    stages = []
    for trial in (False, True):
        out = folder / ("tried" if trial else "plain")
        if kind == "ppo":
            shutil.copytree(reward_model(), out / "reward_model", dirs_exist_ok=True)
        said = go(kind, args, out, trial=trial, **more)
        assert ("longest batch" in said) == trial, said
        stages.append(out / kind)
    runs.check_equal(stages[1], stages[0])
    assert max(row["grad_norm"] for row in runs.rows(stages[0] / "metrics.jsonl")) > 1e-4


@pytest.mark.parametrize("case", TRACELESS)
def test_a_run_with_a_trial_ends_as_one_without(tmp_path, case):
    traceless(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "sharded"),
    [("grpo", False), ("distill", False), ("ppo", True), ("dpo", True)],
    ids=["grpo, ddp", "distill, ddp", "ppo, fsdp2", "dpo, fsdp2"],
)
def test_so_it_does_in_two_processes(tmp_path, case, sharded):
    traceless(case, tmp_path, ranks=2, sharded=sharded)


def test_a_stage_that_only_samples_draws_the_same(tmp_path):
    for trial in (False, True):
        out = tmp_path / str(trial)
        said = go("sample", ["--recipe", "tiny", "--stage", "sample", "--limit", "6"], out,
                  trial=trial, hurt=["sampled_recipe.add"])  # fmt: skip
        assert ("samples would be kept" in said) == trial
    both = [
        (tmp_path / name / "sample" / "sampled.jsonl").read_bytes() for name in ("False", "True")
    ]
    assert both[0] == both[1]


CHECK = [*GRPO, "--check"]
# Flags or a harm, and what the trial says of it.
STOPS = {
    "all cut": ([], ["all_cut"], "for all 16 completions, all cut at --sampling.max-tokens 16",
                "raise it"),
    "cold": (
        ["--sampling.temperature", "1e-4", "--importance", "off"],
        None,
        "samples: all completions of each prompt are the same at --sampling.temperature 0.0001",
        "give 1",
    ),
    "no numbers": ([], ["nan_weights"], "weights: 1 of the tensors", "layers.1.mlp.up_proj"),
    "NaN": ([], ["reward_on_samples", "nan"], "reward: on completions", "returned nan"),
    "infinite": ([], ["reward_on_samples", "inf"], "reward: on completions", "returned inf"),
    "too few": ([], ["reward_on_samples", "few"], "reward: on completions", "15"),
    "raises": ([], ["reward_on_samples", "raise"], "reward: on completions", "no such thing"),
    "blind": ([], ["reward_on_samples", "one"], "reward: 1 for all 16 completions",
              "does not look at the text"),
    "another sampler": ([], ["other_weights"], "sampler: the sampler's log-probs are 1 nats",
                        "does not sample from the weights that train"),
    "never fits": ([], ["small_memory", 3], "memory: a prompt and its completion", "do not fit"),
    "goes on": ([], ["goes_on"], "end token: 16 of 16 completions go on after <|pad|>",
                "eos_token_id"),
}  # fmt: skip


@pytest.mark.parametrize("case", STOPS)
def test_what_would_teach_nothing_is_named_and_nothing_is_written(tmp_path, case):
    flags, hurt, *words = STOPS[case]
    hurt = hurt and [f"trial_hurts.{hurt[0]}", *hurt[1:]]
    out = tmp_path / "run"
    said = go("grpo", [*CHECK, *flags], out, code=2, hurt=hurt)
    found = "\n".join(errors(said))
    for word in words:
        assert word in found, said
    assert list(out.iterdir()) == []


def test_a_trial_stops_a_run_before_its_first_step_on_every_process(tmp_path):
    hurt = ["trial_hurts.reward_on_samples", "nan"]
    said = go("grpo", GRPO, tmp_path / "run", code=2, ranks=2, hurt=hurt)
    assert said.count("returned nan") == 2
    assert not (tmp_path / "run" / "grpo" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("kind", "args", "hurt", "words"),
    [
        ("grpo", CHECK, ["small_memory", 100], "memory: a pack of .* does not fit"),
        ("grpo", CHECK, ["attention_dropout"], "importance ratio: .* attention dropout is on"),
        ("dpo", [*RLHF, "--check"], ["attention_dropout"], "reference: .* attention dropout is on"),
    ],
    ids=["memory", "ratio", "reference"],
)
def test_what_may_be_meant_is_a_warning(tmp_path, kind, args, hurt, words):
    said = go(kind, args, tmp_path / "run", hurt=[f"trial_hurts.{hurt[0]}", *hurt[1:]])
    assert re.search(f"warning: {words}", said), said


def test_a_pack_that_does_not_fit_is_named_with_the_budget_that_does(tmp_path):
    said = go("grpo", CHECK, tmp_path / "run", hurt=["trial_hurts.small_memory", 100])
    (limit,) = re.findall(r"packs of (\d+) tokens do", said)
    assert f"--compute.token-budget {limit}. " in said
    flags = ["--compute.token-budget", limit]
    again = go("grpo", [*CHECK, *flags], tmp_path / "again", hurt=["trial_hurts.small_memory", 100])
    assert "does not fit" not in again


def test_the_longest_batch_is_as_long_as_the_budget_and_the_data_let_it(tmp_path):
    said = go("grpo", [*CHECK, "--prompts", "40"], tmp_path / "run")
    # A group is 33 + 4 x 16 tokens, and the budget 512: five of 40 fit.
    assert "a pack of 485 tokens, 20 sequences" in said
    said = go("grpo", [*CHECK, "--prompts", "2"], tmp_path / "run")
    assert "a pack of 194 tokens, 8 sequences" in said  # 2 x (33 + 4 x 16)


@pytest.mark.parametrize("rank", [0, 4])
def test_the_longest_batch_has_the_optimizer_s_moments_beside_it(tmp_path, rank):
    """A run that fits without them would end at its second step. Of adapters they are small."""
    flags = [*CHECK, "--lora.rank", str(rank)]
    said = go("grpo", flags, tmp_path / "run", hurt=["trial_hurts.shows_moments"])
    (held,) = map(int, re.findall(r"held as moments: (\d+) bytes", said))
    assert (held > 2 * 4 * 50_000) == (rank == 0) and held > 2 * 4 * 1_000


def test_moments_that_do_not_fit_are_not_cured_by_smaller_packs(tmp_path):
    said = go("grpo", CHECK, tmp_path / "run", code=2, hurt=["trial_hurts.no_room_for_moments"])
    (line,) = [line for line in said.splitlines() if line.startswith("error: memory")]
    assert "do not fit in memory beside the weights: train adapters alone with --lora.rank" in line
    assert "--compute.token-budget" not in line


def test_dpo_begins_where_the_policy_is_the_reference(tmp_path):
    said = go("dpo", [*RLHF, "--check"], tmp_path / "run")
    (apart,) = re.findall(r"its reference agree: (\S+) nats", said)
    assert float(apart) < 1e-6


def test_a_run_that_goes_on_from_a_checkpoint_has_no_trial(tmp_path):
    out = tmp_path / "run"
    hurt = ["between_minibatches", 3]
    go("grpo", GRPO, out, code=-9, hurt=hurt)
    (tmp_path / "run.log").unlink()
    said = go("grpo", [*GRPO, "--resume"], out)
    assert "resumed after step 2" in said and "longest batch" not in said


def test_a_reward_alike_for_all_samples_is_a_warning_where_other_texts_earn_more():
    found = Findings()
    seen = [_seen(values=[0.0] * 4), _seen(values=[0.0] * 4)]
    worth.judge_rewards(seen, CONFIG, [(0.0, {}), (1.0, {})], all_cut=False, found=found)
    assert [(one.level, one.check) for one in found.found] == [("warning", "reward")]
    assert "0 for all 8 completions" in found.found[0].said


def test_good_samples_are_no_finding():
    found = Findings()
    seen = [_seen(values=[0.0, 1.0, 0.0, 1.0]), _seen(values=[1.0] * 4)]
    cut = worth.judge_texts(seen, CONFIG.sampling, chat=True, guess=9.0, made=False, found=found)
    worth.judge_rewards(seen, CONFIG, [(0.0, {}), (1.0, {})], all_cut=cut, found=found)
    assert found.found == [] and not cut


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"texts": ["a"] * 4}, "warning", "all completions of each prompt are the same"),
        ({"texts": ["a", "a", "a", "b"]}, "warning", "75% of the completions repeat another"),
        ({"values": [1.0] * 4}, "warning", "every completion is rewarded alike"),
        ({"values": [None] * 4}, "warning", "None (does not apply) for all 8"),
        ({"outcomes": ["timeout"] * 4}, "error", "of 8 completions 8 timeout"),
        ({"texts": [""] * 4}, "error", "all 8 completions are empty"),
        ({"truncated": [True] * 4}, "warning", "8 of 8 completions were cut"),
        ({"nats": [85.0] * 4}, "warning", "the model writes at random"),
    ],
    ids=str,
)
def test_what_samples_show(changes, level, words):
    found = Findings()
    base = {"values": [0.0, 1.0, 0.0, 1.0]}
    other = {"values": [0.0] * 4} if "values" in changes and 1.0 in changes["values"] else {}
    seen = [_seen(**(base | changes)), _seen(**(base | changes | other))]
    cut = worth.judge_texts(seen, CONFIG.sampling, chat=True, guess=9.0, made=False, found=found)
    worth.judge_rewards(seen, CONFIG, [(0.0, {}), (1.0, {})], all_cut=cut, found=found)
    assert any(one.level == level and words in one.said for one in found.found), found.found


@pytest.mark.parametrize(("prompts", "level"), [(1, "warning"), (3, "warning"), (4, "error")])
def test_few_samples_that_were_all_cut_are_no_proof(prompts, level):
    found = Findings()
    seen = [_seen(values=[0.0] * 4, truncated=[True] * 4)] * prompts
    worth.judge_rewards(seen, CONFIG, [(1.0, {})], all_cut=True, found=found)
    assert [one.level for one in found.found if "all cut at" in one.said] == [level]


@pytest.mark.parametrize(
    ("changes", "level", "flag"),
    [
        ({"top_k": 1}, "error", "--sampling.top-k 1"),
        ({"top_p": 0.01}, "warning", "--sampling.top-p 0.01"),
        ({"temperature": 0.005}, "error", "--sampling.temperature 0.005"),
        ({"temperature": 0.3}, "warning", "--sampling.temperature 0.3"),
    ],
    ids=str,
)
def test_what_makes_samples_alike_is_named(changes, level, flag):
    found = Findings()
    sampling = dataclasses.replace(CONFIG.sampling, **changes)
    config = dataclasses.replace(CONFIG, sampling=sampling, importance="off")
    seen = [_seen(texts=["a"] * 4, values=[1.0] * 4), _seen(texts=["b"] * 4, values=[0.0] * 4)]
    worth.judge_rewards(seen, config, [(0.0, {})], all_cut=False, found=found)
    assert [one.level for one in found.found] == [level]
    assert flag in found.found[0].said


@pytest.mark.parametrize("limit", [16, 1024, 2048])
def test_where_tokens_are_dear_more_prompts_are_drawn_with_fewer_samples(limit):
    sampling = dataclasses.replace(CONFIG.sampling, max_tokens=limit)
    asked = dataclasses.replace(CONFIG, sampling=sampling, samples=8)
    assert sampled.size(asked, "cpu") == {16: (4, 8), 1024: (4, 2), 2048: (2, 2)}[limit]


CONFIG = recipe.load("tiny").stage(Grpo, None)


def _seen(**changes):
    plain = {
        "values": [0.0, 1.0, 0.0, 1.0],
        "parts": [{}] * 4,
        "outcomes": ["ok"] * 4,
        "lengths": [10] * 4,
        "truncated": [False] * 4,
        "texts": ["a", "b", "c", "d"],
        "nats": [5.0] * 4,
        "went_on": [""] * 4,
    }
    return Seen(**(plain | changes))
