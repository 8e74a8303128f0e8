"""Good recipes with one mistake each, for `--check` in the nursery: data files, model folders, and
what is changed in a forked process before it begins.
"""

import dataclasses
import json
import math
import shutil
import time
from pathlib import Path

import runs

MODEL = runs.REPOSITORY / "recipes" / "tiny_model"


def check(folder, kind, *args, hurt=None, recipe="tiny", model=f"random:{MODEL}"):
    """Exit code, what was said and the seconds of a look at a stage, without its trial."""
    flags = ["--recipe", recipe, "--out", folder / "run", "--check", "--skip-trial"]
    given = [] if model is None else ["--model", model]
    begun = time.monotonic()
    answer = runs.nursery().run(kind, [*flags, *given, *args], hurt=hurt, log=folder / "log")
    seconds = time.monotonic() - begun
    return answer["codes"][0], (folder / "log").read_text(), seconds


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error:")]


def warnings(text):
    return [line for line in text.splitlines() if line.startswith("warning:")]


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def problems(count=12, **more):
    """Sums as chats; more: columns made of a row's number and its row."""
    rows = [
        {"prompt": user(f"{i} plus {i + 1}?"), "solution": str(2 * i + 1)} for i in range(count)
    ]
    for name, make in more.items():
        rows = [row | {name: make(i, row)} for i, row in enumerate(rows)]
    return rows


def without(rows, column):
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def write(folder, rows):
    """As a file for --data."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def model(folder, *, config=None, tokenizer=None, template=None):
    """A copy of the tiny model's folder, its files changed; a template of "" is none."""
    into = folder / "model"
    shutil.copytree(MODEL, into)
    for name, changes in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        values = json.loads((into / name).read_text()) | (changes or {})
        (into / name).write_text(json.dumps(values))
    if template is not None:
        file = into / "chat_template.jinja"
        file.write_text(template) if template else file.unlink()
    return f"random:{into}"


def template():
    return (MODEL / "chat_template.jinja").read_text()


# What follows changes a forked process.


def reward(name, *args):
    """The recipe tiny with another reward."""
    import recipes.tiny

    sft, grpo = recipes.tiny.RECIPE.stages
    changed = dataclasses.replace(grpo, reward=globals()[name](*args))
    recipes.tiny.RECIPE = dataclasses.replace(recipes.tiny.RECIPE, stages=(sft, changed))


def likes_everything():
    def judge(completions, solution, **columns):
        return [1.0 if "<answer>" in each[0]["content"] else 0.0 for each in completions]

    return judge


def constant():
    return lambda completions, **columns: [0.5 for _ in completions]


def not_a_number():
    return lambda completions, **columns: [math.nan for _ in completions]


def reads(column):
    def judge(completions, **columns):
        return [float(len(value)) for value in columns[column]]

    return judge


def upside_down():
    import rewards

    return rewards.WeightedSum(((-1.0, rewards.Accuracy()),))


def exact():
    """A good one of one's own: the answer must stand after ####."""

    def judge(completions, solution, **columns):
        texts = [each[0]["content"] for each in completions]
        return [
            2.0 * (text.rpartition("####")[2].strip() == gold)
            for text, gold in zip(texts, solution, strict=True)
        ]

    return judge


def short():
    """A good one that reads no gold."""
    return lambda completions, **columns: [-len(each[0]["content"]) / 100 for each in completions]


def accuracy():
    import rewards

    return rewards.Accuracy()


def formatted():
    import rewards

    return rewards.WeightedSum(((1.0, rewards.Accuracy()), (0.5, rewards.Format())))


def gated(column, kind):
    import rewards

    return rewards.Where(reward=rewards.Accuracy(), column=column, equals=(kind,))


def full_disk(free):
    """So many bytes are left, wherever one looks."""
    import shutil as files

    used = files.disk_usage("/")
    files.disk_usage = lambda path: used._replace(free=free)


def saved(folder, harm):
    """A model with weights of its own in that folder, then the harm."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from align.locate import Located
    from align.models import ready

    drawn = ready(Located(kind="random", path=str(MODEL)))
    made = AutoModelForCausalLM.from_pretrained(drawn)
    tokenizer = AutoTokenizer.from_pretrained(drawn)
    if harm == "nan":
        made.model.layers[1].mlp.up_proj.weight.data[3, 5] = math.nan
    if harm == "tokens":
        tokenizer.add_tokens(["<one>", "<two>"])
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = Path(folder) / "config.json"
    values = json.loads(config.read_text())
    if harm == "deeper":
        config.write_text(json.dumps(values | {"num_hidden_layers": 3}))
    if harm == "wider":
        config.write_text(json.dumps(values | {"intermediate_size": 160}))
