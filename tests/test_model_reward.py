"""A reward model as a reward: its exported model's own logits, wherever rewards are taken."""

import dataclasses
import json
import math
import shutil
from unittest.mock import patch

import preference_stage as ours
import pytest
import runs
import tiny
import torch
import trl
import trl_peer
from datasets import Dataset
from preference_stage import own_cache, tiny_folder  # noqa: F401  (fixtures of this module too)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaForSequenceClassification,
)

import data
import rewards
from align import models
from align.config import Checkpoints, Compute, Engine, Grpo, Optim, RewardModel, Sampling
from align.files.locate import locate
from align.model_reward import ModelReward, final_answer, placed
from align.recipe import Recipe, RecipeError
from align.references import loading, references
from align.stages import Launch, run_stage
from align.terminal.findings import PreflightError

CHAT = [
    ("How much is 1 + 1?", "<think>one, and one</think><answer>2</answer>"),
    ("How much is 1 + 1?", "3, I think"),
    ("Name a letter.", "b"),
    ("Name a letter.", ""),
    ("How much is 1 + 1?", " two "),
    ("Say <|im_end|>", "x"),
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run folder in which a reward model was trained, its head moved to tell texts apart; and
    beside it the policy that it was trained from.
    """
    out = tmp_path_factory.mktemp("run")
    shape = {"vocab_size": 100, "max_position_embeddings": 512, "eos_token_id": 2}
    models.save(tiny.model(**shape), tiny.chat_tokenizer(), out / "policy")
    rows = [{"prompt": [user("1")], "chosen": says("2"), "rejected": says("3")}]
    config = RewardModel(**ours.settings(out / "policy", holdout=0.0))
    stage = ours.made(config, Dataset.from_list(rows))
    trl_peer.move(stage.context.model, seed=1, by=0.3)
    stage.save(out / "reward_model" / "model")
    return out


@pytest.fixture(scope="module")
def path(run_folder):
    return str(run_folder / "reward_model" / "model")


def user(text):
    return {"role": "user", "content": text}


def says(text):
    return [{"role": "assistant", "content": text}]


def reward_of(path, **more):
    return ModelReward(model=str(path), precision="fp32", **more)


def logits(path, texts):
    """What transformers makes of these texts, each alone, with the model's own tokenizer."""
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        return [
            model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits.item()
            for text in texts
        ]


def chat_text(path, question, answer):
    """As a training row is rendered: up to the token that ends the answer."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    return tokenizer.apply_chat_template([user(question), *says(answer)], tokenize=False).strip()


@pytest.mark.parametrize("budget", [1, 200, 10_000])
def test_chat_scores_are_the_exported_models_logits(budget, path):
    """Prompts that come several times, apart from each other; an empty answer; strings or messages
    as completions.
    """
    expected = logits(path, [chat_text(path, *both) for both in CHAT])
    prompts = [[user(question)] for question, _ in CHAT]
    answers = [answer for _, answer in CHAT]
    reward = reward_of(path, token_budget=budget)
    for completions in (answers, [says(answer) for answer in answers]):
        found = reward(completions, prompts=prompts)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert max(found) - min(found) > 0.1
    assert len({round(value, 4) for value in found}) == len(CHAT)


@pytest.mark.parametrize("pad", ["<pad>", "<eos>"])
def test_plain_scores_are_the_exported_models_logits(pad, folder, tmp_path):
    models.save(AutoModelForCausalLM.from_pretrained(folder), tokenizer(pad), tmp_path / "policy")
    pairs = ours.make_pairs(5)
    config = RewardModel(**ours.settings(tmp_path / "policy", holdout=0.0))
    stage = ours.made(config, ours.pair_rows(pairs))
    stage.save(tmp_path / "rm" / "model")
    pairs = [pair for pair in pairs if len(pair.chosen) > 1]
    prompts = [ours.words(pair.prompt) for pair in pairs]
    answers = [" " + ours.words(pair.chosen) for pair in pairs]
    texts = [f"{p}{a} <eos>" for p, a in zip(prompts, answers, strict=True)]
    expected = logits(tmp_path / "rm" / "model", texts)
    found = reward_of(tmp_path / "rm" / "model")(answers, prompts=prompts)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert len(found) > 2


def tokenizer(pad):
    made = trl_peer.tiny_tokenizer()
    made.pad_token = pad
    return made


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>1 + 1</think>\n<answer> 2 </answer>", "2"),
        ("<answer>1</answer> no, <answer>2\n3</answer>", "2\n3"),
        ("<think>so</think> it is 2", "it is 2"),
        ("<answer>2", "<answer>2"),
        ("<think>a</think><think>b</think>c", "c"),
        (" plain ", "plain"),
        ("<think>never closed", "<think>never closed"),
        ("", ""),
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


def test_reads_answer_scores_the_final_answer_alone(path):
    """Helpfulness judges what is answered; the thought before it may say anything."""
    thought = "<think>{}</think><answer>42</answer>"
    texts = [thought.format("a"), thought.format("quite another one"), "42"]
    prompts = [[user("6 * 7?")]] * 3
    answers = reward_of(path, reads="answer")(texts, prompts=prompts)
    whole = reward_of(path)(texts, prompts=prompts)
    assert answers == pytest.approx([whole[2]] * 3, rel=1e-5)
    assert len({round(value, 4) for value in whole}) == 3


def test_scale_and_shift(path):
    columns = {"prompts": [[user("1")]] * 2}
    plain = reward_of(path)(["a", "b"], **columns)
    other = reward_of(path, scale=-2.0, shift=0.5, label="rm")
    first, second = other.score(["a", "b"], **columns)
    assert [first.value, second.value] == pytest.approx([-2 * (v - 0.5) for v in plain])
    assert [first.parts["rm"], second.parts["rm"]] == pytest.approx(plain)
    assert first.correct is None


def test_in_a_weighted_sum(path):
    both = rewards.WeightedSum(((0.5, reward_of(path)), (2.0, rewards.Repetition(n=1))))
    texts, prompts = ["a b c", "a a a"], [[user("1")]] * 2
    scores = both.score(texts, prompts=prompts)
    alone = reward_of(path)(texts, prompts=prompts)
    repeated = rewards.Repetition(n=1)(texts)
    for score, mine, other in zip(scores, alone, repeated, strict=True):
        assert score.value == pytest.approx(0.5 * mine + 2.0 * other, rel=1e-6)
        assert score.parts["model"] == pytest.approx(mine)
    assert loading(both) == [reward_of(path)]


def test_without_prompts_the_mistake_is_named(path):
    with pytest.raises(ValueError, match="needs the column 'prompts'"):
        reward_of(path)(["a"])


def test_two_steps_in_trls_trainer(run_folder, path, tmp_path):
    """Unchanged, as `reward_funcs`; a second function writes down what was judged."""
    seen = []

    def witness(completions, prompts, **_):
        seen.append((prompts, [each[-1]["content"] for each in completions]))
        return [0.0] * len(completions)

    model = AutoModelForCausalLM.from_pretrained(run_folder / "policy")
    before = model.lm_head.weight.detach().clone()
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=[ModelReward(model=path, precision="fp32"), witness],
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=8,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            seed=0,
        ),
        train_dataset=Dataset.from_list([{"prompt": [user(f"{a} + 2")]} for a in range(8)]),
        processing_class=AutoTokenizer.from_pretrained(run_folder / "policy"),
    )
    trainer.train()
    steps = [row for row in trainer.state.log_history if "reward" in row]
    assert len(steps) == len(seen) == 2
    for step, (prompts, answers) in zip(steps, seen, strict=True):
        scores = reward_of(path)(answers, prompts=prompts)
        assert step["rewards/model/mean"] == pytest.approx(sum(scores) / 4, rel=1e-4, abs=1e-5)
        assert max(scores) - min(scores) > 1e-3
    assert not torch.equal(before, model.lm_head.weight)


# In a recipe.


def recipe(run_folder, model="@reward_model", **more):
    settings = ours.settings(run_folder / "policy", holdout=0.0)
    problems = data.Arithmetic(operators=1, max_number=9, symbols="+", size=4)
    grpo = Grpo(
        model=str(run_folder / "policy"),
        data=problems,
        reward=rewards.WeightedSum(((2.0, ModelReward(model=model, precision="fp32", **more)),)),
        steps=2,
        prompts=2,
        samples=2,
        engine=Engine(kind="hf"),
        sampling=Sampling(max_prompt_tokens=200, max_tokens=6),
        optim=Optim(lr=1e-3),
        compute=Compute(precision="fp32", token_budget=512),
        checkpoints=Checkpoints(every=0),
    )
    return Recipe(name="a-test", stages=(RewardModel(**settings), grpo))


def run(stage, out, recipe="a-test"):
    """The stage as its script runs it, but in this process."""
    located = {name: locate(name, out, recipe=recipe) for name in references(stage)}
    launch = Launch(recipe=recipe, out=out, resume=False, check=False, report_to="none")
    with patch("align.processes.preempt._follow_launcher"):
        run_stage(stage, located, launch)


def test_a_grpo_stage_of_a_recipe_learns_from_its_reward_model(run_folder, path):
    """`@reward_model` is what that stage wrote; every sample's score is the model's logit."""
    stage = recipe(run_folder).stages[1]
    assert references(stage) == [str(run_folder / "policy"), "@reward_model"]
    run(stage, run_folder)
    rows = stage.data.rows()
    lines = (run_folder / "grpo" / "samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert len(samples) == 2 * 2 * 2
    for sample in samples:
        prompt = rows[sample["prompt_index"]]["prompt"]
        (score,) = reward_of(path)([sample["completion"]], prompts=[prompt])
        assert sample["parts"]["model"] == pytest.approx(score, rel=1e-4, abs=1e-5)
        assert sample["reward"] == pytest.approx(2 * score, rel=1e-4, abs=1e-5)
    described = json.loads((run_folder / "grpo" / "config.json").read_text())
    assert described["reward"]["terms"][0][1]["model"] == "@reward_model"


def test_on_mixed_prompts_each_kind_has_its_reward_and_no_figure_is_a_mean_with_the_others(
    run_folder, path
):
    """A gated model in a stage: found, placed, and asked about chat alone."""
    (grpo,) = recipe(run_folder).stages[1:]
    accuracy = rewards.Where(reward=rewards.Accuracy(), column="on", equals=("arithmetic",))
    judge = ModelReward(model="@reward_model", precision="fp32", label="helpful")
    stage = dataclasses.replace(
        grpo,
        name="mixed",
        data=data.Mixture(
            sources=((1.0, grpo.data), (1.0, data.Everyday(use="prompts", size=4))), origin="on"
        ),
        reward=rewards.WeightedSum(
            ((1.0, accuracy), (0.5, rewards.Where(reward=judge, equals=("general", "decline"))))
        ),
        prompts=4,
    )
    assert references(stage) == [str(run_folder / "policy"), "@reward_model"]
    run(stage, run_folder)
    rows = stage.data.rows()
    lines = (run_folder / "mixed" / "samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    for sample in samples:
        row = rows[sample["prompt_index"]]
        if row["on"] == "arithmetic":
            assert sample["parts"] == {"accuracy": sample["correct"], "helpful": None}
        else:
            (score,) = reward_of(path)([sample["completion"]], prompts=[row["prompt"]])
            assert sample["parts"] == {"accuracy": None, "helpful": pytest.approx(score, rel=1e-4)}
            assert (sample["solution"], sample["correct"]) == (None, None)
            assert sample["reward"] == pytest.approx(score / 2, rel=1e-4)
    lines = (run_folder / "mixed" / "metrics.jsonl").read_text().splitlines()
    for metrics in map(json.loads, lines):
        assert all(math.isfinite(value) for value in metrics.values())
        mine = [each for each in samples if each["step"] == metrics["step"]]
        for part in ("accuracy", "helpful"):
            known = [each["parts"][part] for each in mine if each["parts"][part] is not None]
            assert 0 < len(known) < len(mine)
            assert metrics[f"reward/{part}"] == pytest.approx(sum(known) / len(known))


def test_a_recipe_refuses_a_reward_model_that_no_stage_writes(run_folder):
    with pytest.raises(
        RecipeError, match="needs '@reward_modle', but the models of the stages before it are"
    ):
        recipe(run_folder, model="@reward_modle")


@pytest.mark.parametrize("prompts", [3, 1])
def test_ppo_in_two_processes_trains_what_one_trains(prompts, tmp_path):
    """Reward and critic from the recipe's reward model. 3 prompts give the second process fewer
    than the first, 1 prompt gives it none.
    """
    args = ["--recipe", "tiny-rlhf", "--model", "random:recipes/tiny_model", "--epochs", "0.2"]
    log = tmp_path / "log"
    answer = runs.nursery().run("reward_model", [*args, "--out", tmp_path], log=log)
    assert answer["codes"] == [0], log.read_text()

    def put(out):
        shutil.copytree(tmp_path / "reward_model", out / "reward_model")

    more = ["--steps", "2", "--prompts", str(prompts), "--minibatches", str(min(2, prompts))]
    one, _ = ours.check_two_processes("ppo", tmp_path, *more, before=put)
    rows = runs.rows(one / "metrics.jsonl")
    assert {"reward/model", "value_loss", "kl", "kl/sequence", "explained_variance"} <= set(rows[0])


# What is no reward model.


def two_labels(folder):
    config = tiny.LlamaConfig(**(tiny.SHAPE | {"vocab_size": 100, "num_labels": 2}))
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny.chat_tokenizer().save_pretrained(folder)
    return folder


def test_two_labels_are_refused(tmp_path, run_folder):
    wrong = two_labels(tmp_path / "wrong")
    with pytest.raises(models.ModelError, match="has 2 labels; a reward model has one"):
        reward_of(wrong)(["a"], prompts=[[user("1")]])
    stage = recipe(run_folder, model=str(wrong)).stages[1]
    with pytest.raises(PreflightError, match="has 2 labels"):
        run(stage, tmp_path / "out")
    assert not (tmp_path / "out" / "grpo" / "metrics.jsonl").exists()


def test_a_language_model_is_refused(tmp_path, run_folder):
    wrong = run_folder / "policy"
    with pytest.raises(models.ModelError, match="is no reward model but a LlamaForCausalLM"):
        reward_of(wrong)(["a"], prompts=[[user("1")]])
    stage = recipe(run_folder, model=str(wrong)).stages[1]
    with pytest.raises(PreflightError, match="is no reward model"):
        run(stage, tmp_path / "out")


def test_a_classifier_of_another_build_is_refused(tmp_path):
    """BERT's head is two layers and its attention looks both ways: it takes no packs."""
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tiny.chat_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(models.ModelError, match="no linear head called score"):
        reward_of(tmp_path)(["a"], prompts=[[user("1")]])


def test_a_stage_outside_of_a_recipe_is_refused():
    with pytest.raises(ValueError, match=r"@reward_model is a stage of a recipe; outside of one"):
        reward_of("@reward_model")(["a"], prompts=[[user("1")]])


def test_placed_reaches_into_sums(path):
    inner = rewards.WeightedSum(((1.0, reward_of("@rm")), (0.5, rewards.Repetition(n=1))))
    outer = rewards.WeightedSum(((1.0, inner), (3.0, reward_of("@other", label="other"))))
    found = placed(outer, lambda name: f"runs/{name[1:]}")
    assert [each.model for each in loading(found)] == ["runs/rm", "runs/other"]
    assert [each.model for each in loading(outer)] == ["@rm", "@other"]


def test_placed_reaches_into_gates(path):
    gate = rewards.Where(reward=reward_of("@rm", label="helpful"), column="on", equals=("chat",))
    outer = rewards.WeightedSum(((1.0, rewards.Accuracy()), (0.5, gate)))
    found = placed(outer, lambda name: path)
    assert [each.model for each in loading(found)] == [path]
    assert [each.model for each in loading(outer)] == ["@rm"]
    prompts = [[user("Name a letter.")]] * 2
    scores = found.score([says("b"), says("2")], prompts=prompts, on=["chat", "math"],
                         solution=[None, "2"])  # fmt: skip
    (alone,) = reward_of(path)([says("b")], prompts=prompts[:1])
    assert scores[0].parts == {"accuracy": None, "helpful": pytest.approx(alone, rel=1e-5)}
    assert scores[0].value == pytest.approx(alone / 2, rel=1e-5)
    assert (scores[1].value, scores[1].parts) == (1.0, {"accuracy": 1.0, "helpful": None})
