"""Good recipes with one mistake each, for `--check` in the nursery: data files, model folders, and
what is changed in a forked process before it begins.
"""

import collections
import dataclasses
import json
import math
import random
import re
import shutil
import time
from pathlib import Path

import runs

MODEL = runs.REPOSITORY / "recipes" / "tiny_model"


def check(folder, kind, *args, hurt=None, recipe="tiny", model=f"random:{MODEL}", trial=False):
    """Exit code, what was said and the seconds of a look at a stage."""
    flags = ["--recipe", recipe, "--out", folder / "run", "--check"]
    given = [] if model is None else ["--model", model]
    begun = time.monotonic()
    args = [*flags, *given, *args]
    answer = runs.nursery().run(kind, args, hurt=hurt, trial=trial, log=folder / "log")
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


def golds(i, row):
    """For a column that holds the solution too."""
    return row["solution"]


def replied(count=12, text=golds):
    """Sums with an answer in place of the gold; text: made of a row's number and its row."""
    rows = [row | {"completion": assistant(text(i, row))} for i, row in enumerate(problems(count))]
    return without(rows, "solution")


def judged(count=12, *, right=True, told=True):
    """Pairs of a right answer and a wrong one, chosen if `right`, beside their gold if `told`."""
    sides = ("chosen", "rejected") if right else ("rejected", "chosen")
    rows = problems(count)
    for i, row in enumerate(rows):
        texts = (f"{i} plus {i + 1} is {row['solution']}", f"{i + 2} plus {i + 3} is {2 * i + 5}")
        row |= {side: assistant(text) for side, text in zip(sides, texts, strict=True)}
    return rows if told else without(rows, "solution")


def labelled(count=12, *, right=True, told=True):
    """Those pairs as labelled rows, right ones true if `right`."""
    rows = [
        {name: row[name] for name in ("prompt", "solution")}
        | {"completion": row[side], "label": (side == "chosen") == right}
        for row in judged(count)
        for side in ("chosen", "rejected")
    ]
    return rows if told else without(rows, "solution")


def scored(chosen, rejected):
    return [
        row | {"score_chosen": chosen, "score_rejected": rejected} for row in judged(told=False)
    ]


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


def narrow():
    def judge(completions, solution):
        return [0.0 for _ in completions]

    return judge


def words():
    return lambda completions, **columns: [len(each.split()) / 100 for each in completions]


def lengthy():
    import rewards

    parts = ((1.0, rewards.Accuracy()), (1.0, rewards.SoftOverlong(max_len=32, cache=8)))
    return rewards.WeightedSum(parts)


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


def signed(column):
    """A good one: +1 for a completion that ends with the column's text, else -1."""

    def judge(completions, **columns):
        texts = [each[0]["content"] for each in completions]
        return [
            1.0 if text.strip().endswith(gold) else -1.0
            for text, gold in zip(texts, columns[column], strict=True)
        ]

    return judge


def rare(seldom):
    """A good one that applies to mathematics alone."""

    def judge(completions, kind, **columns):
        texts = [each[0]["content"] for each in completions]
        return [
            float(len(text) % 3) if name == seldom else None
            for text, name in zip(texts, kind, strict=True)
        ]

    return judge


def as_long():
    """A good one: the solution is the length that is wanted."""

    def judge(completions, solution, **columns):
        texts = [each[0]["content"] for each in completions]
        return [-abs(len(text) - int(n)) / 100 for text, n in zip(texts, solution, strict=True)]

    return judge


def tested():
    """A good one for programs, strict: the fenced program must hold what the tests look for, and
    the reference in the column solution is another program.
    """

    def judge(completions, tests, **columns):
        texts = [each[0]["content"] for each in completions]
        return [
            float("```python" in text and wanted in text)
            for text, wanted in zip(texts, tests, strict=True)
        ]

    return judge


def half_of(column):
    """0.5 whatever is written, though it looks into a column."""
    return lambda completions, **columns: [0.5 for _ in columns[column]]


def hangs():
    """Answers nothing but the empty completion; what a check waits is cut to a second."""
    from data import reward_scores

    reward_scores.PATIENCE = 1.0

    def judge(completions, **columns):
        if any(each[0]["content"] for each in completions):
            time.sleep(3600)
        return [0.0 for _ in completions]

    return judge


def first_alone():
    """What the first of a batch earns, for all."""

    def judge(completions, solution, **columns):
        right = completions[0][0]["content"].endswith(f"<answer>{solution[0]}</answer>")
        return [float(right) for _ in completions]

    return judge


def ascending():
    return lambda completions, **columns: sorted(len(each[0]["content"]) for each in completions)


def chance():
    return lambda completions, **columns: [random.random() for _ in completions]


def of_prompts():
    """The prompt is scored where the completion is meant."""

    def judge(completions, prompts, **columns):
        return [sum(map(ord, each[0]["content"])) % 100 / 100 for each in prompts]

    return judge


def slow_limits():
    import rewards

    return rewards.PerSample(fn=sleeps, seconds=0.2)


def sleeps(text):
    time.sleep(60)


def divides():
    """One row of many has a target of 0."""
    return lambda completions, target, **columns: [
        -len(each[0]["content"]) / n for each, n in zip(completions, target, strict=True)
    ]


def on_samples(harm):
    """Good but on what a random model writes, which has none of the marks of a tried text."""
    from align.preflight import rehearsal

    rehearsal.ONE = 1.0

    def judge(completions, solution, **columns):
        texts = [each[0]["content"] for each in completions]
        for text in texts:
            if 2 < len(text) < 17 and " " not in text and not text.isdigit() and text.isascii():
                harms[harm]()
        return [
            float(text.endswith(f"<answer>{gold}</answer>"))
            for text, gold in zip(texts, solution, strict=True)
        ]

    harms = {
        "sleeps": lambda: time.sleep(600),
        "searches": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
    }
    return judge


def slow():
    """A good one that takes its time."""

    def judge(completions, solution, **columns):
        time.sleep(0.005 * len(completions))
        return exact()(completions, solution)

    return judge


def novelty():
    """A good one that remembers."""
    seen = collections.Counter()

    def judge(completions, **columns):
        texts = [each[0]["content"] for each in completions]
        seen.update(texts)
        return [1 / seen[text] + len(text) / 1000 for text in texts]

    return judge


def counted():
    """A good one that reads token ids."""
    return lambda completion_ids, **columns: [-len(ids) / 100 for ids in completion_ids]


def negative():
    """A good one in [-1, 0]."""

    def judge(completions, solution, **columns):
        return [value / 2 - 1 for value in exact()(completions, solution)]

    return judge


def later():
    """A good one, async."""

    async def judge(completions, solution, **columns):
        return exact()(completions, solution)

    return judge


def any_of(column):
    """A good one with several right answers."""

    def judge(completions, **columns):
        texts = [each[0]["content"].strip() for each in completions]
        return [
            float(any(text.endswith(one) for one in accepted))
            for text, accepted in zip(texts, columns[column], strict=True)
        ]

    return judge


def runs_tests():
    import rewards

    return rewards.PerSample(fn=passes, seconds=2)


def passes(text, tests):
    """A good one: the fenced program is run with its tests."""
    program = text.partition("```python\n")[2].partition("```")[0]
    if not program:
        return 0.0
    exec(f"{program}\n{tests}", {})  # noqa: S102
    return 1.0


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

    from align.files.locate import Located
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
