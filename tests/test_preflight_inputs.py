"""The parts of the preflight of inputs, on values written out."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from looked_at import answered, grpo, levels, sft, subject
from mistaken import assistant, problems, user
from transformers import LlamaConfig

from align.config import (
    Distill,
    Kto,
    Lora,
    Optim,
    Sampling,
)
from align.preflight import (
    contents,
    endings,
    knowing,
    leaks,
    lengths,
    preferences,
    template,
    values,
    vocabulary,
)
from align.preflight.engine import bytes_a_token
from align.preflight.subject import drawn
from align.stages.context import Launch
from align.stages.foreseen import check_foreseen, nearest
from align.terminal.findings import Findings, PreflightError
from recipes.tiny_r1 import RECIPE
from rewards import Accuracy, Format, WeightedSum


def test_rows_are_drawn_by_lot_and_always_the_same():
    assert drawn(5, 512) == [0, 1, 2, 3, 4]
    assert drawn(10_000, 512) == drawn(10_000, 512) == sorted(set(drawn(10_000, 512)))
    assert len(drawn(10_000, 512)) == 512


@pytest.mark.parametrize(
    ("long", "level"), [(0, None), (1, "note"), (4, "warning"), (19, "warning"), (20, "error")]
)
def test_the_share_that_a_limit_leaves_out(long, level):
    rows = [
        {"prompt": user("x" * (200 if i < long else 10)), "completion": assistant("y")}
        for i in range(20)
    ]
    got, found = levels(lengths._left_out, subject(sft(max_tokens=100), rows))
    assert got == ([(level, "length")] if level else [])
    if level == "warning":
        assert f"{long / 20:.0%} of the rows" in found.found[0].said


def test_a_sequence_above_the_token_budget():
    config = grpo(sampling=Sampling(max_prompt_tokens=64, max_tokens=100))
    for budget, expected in ((200, []), (120, [("warning", "token budget")])):
        compute = SimpleNamespace(token_budget=budget)
        object.__setattr__(config, "compute", compute)
        assert levels(lengths._budget, subject(config, problems()))[0] == expected


def test_a_teacher_with_too_few_positions_is_refused(tmp_path):
    LlamaConfig(vocab_size=100, max_position_embeddings=50).save_pretrained(tmp_path)
    more = {"model": "m", "data": SimpleNamespace(name="rows"), "teacher": str(tmp_path)}
    config = Distill(**more, sampling=Sampling(max_prompt_tokens=64, max_tokens=100))
    got, found = levels(lengths._positions, subject(config, problems()))
    assert got == [("error", "positions")]
    assert "the teacher has 50 positions; --sampling" in found.found[0].said


def test_keys_and_values_a_token():
    """SmolLM2-135M: 30 layers of 3 heads of 64, keys and values, 2 bytes each: 23,040."""
    text = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    assert bytes_a_token(LlamaConfig(hidden_size=576, **text)) == 2 * 2 * 30 * 3 * 64


@pytest.mark.parametrize(
    ("optim", "parameters", "expected"),
    [
        (Optim(lr=0.0), 10**8, [("error", "learning rate")]),
        (Optim(lr=0.5), 10**5, [("error", "learning rate")]),
        (Optim(lr=0.05), 10**5, [("error", "learning rate")]),
        (Optim(lr=1e-2), 10**7, [("error", "learning rate")]),
        (Optim(lr=1e-3), 10**7, [("warning", "learning rate")]),
        (Optim(lr=9e-4), 10**8, []),
        (Optim(lr=5e-3), 10**5, []),
        (Optim(lr=1e-12), 10**8, [("warning", "learning rate")]),
        (Optim(lr=1e-5, warmup=0.9), 10**8, [("warning", "schedule")]),
        (Optim(lr=1e-5, weight_decay=-1.0), 10**8, [("error", "optimizer")]),
    ],
)
def test_rates(optim, parameters, expected):
    rows = answered(problems(count=200))
    got, _ = levels(values.check, subject(sft(optim=optim), rows), parameters=parameters)
    assert got == expected


@pytest.mark.parametrize(("lr", "level"), [(5e-3, None), (1e-2, "warning"), (0.1, "error")])
def test_adapters_take_higher_rates(lr, level):
    looked = subject(sft(optim=Optim(lr=lr), lora=Lora(rank=4)), answered(problems(count=200)))
    got, _ = levels(values.check, looked, parameters=10**8)
    assert got == ([(level, "learning rate")] if level else [])


@pytest.mark.parametrize(("world", "expected"), [(1, 0), (3, 1), (4, 0), (8, 1)])
def test_prompts_are_shared_out_among_processes(world, expected, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    got, _ = levels(values.check, subject(grpo(prompts=4), problems()), parameters=1)
    assert got == [("warning", "processes")] * expected


@pytest.mark.parametrize(
    ("asked", "level"),
    [
        ("{i} plus {j}?", None),
        ("{i} plus {j}? The answer is {gold}.", "error"),
        ("{i} plus {j}?\n{gold}", "warning"),
        ("({gold} is right.) {i} plus {j} equals which number, of 1 and 2?", "warning"),
        ("Which of 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23 is {i} plus {j}?", None),
    ],
)
def test_golds_in_prompts(asked, level):
    def prompt(i, row):
        return user(asked.format(i=i, j=i + 1, gold=row["solution"]))

    got, _ = levels(leaks._golds, subject(grpo(), problems(prompt=prompt)))
    assert got == ([(level, "leak")] if level else [])


def test_a_countdown_s_target_may_stand_in_its_prompt():
    rows = problems(prompt=lambda i, row: user(f"Make this of 1, 2, 3, 7: {row['solution']}"))
    assert levels(leaks._golds, subject(grpo(), rows))[0] == [("warning", "leak")]
    told = [row | {"nums": [1, 2, 3, 7], "target": int(row["solution"])} for row in rows]
    assert levels(leaks._golds, subject(grpo(), told))[0] == []


THINKING = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}"
THINKING += (
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = "<|im_start|>system\n{{ strftime_now('%Y-%m-%d') }}<|im_end|>\n"


def test_a_template_that_drops_reasoning():
    tokenizer = tiny.chat_tokenizer()
    tokenizer.chat_template = THINKING
    rows = [{"prompt": user("1 + 1?"), "completion": assistant("<think>hm</think>2")}] * 4
    got, found = levels(template.check, subject(sft(), rows, tokenizer=tokenizer))
    assert got == [("error", "chat template")]
    assert "rewrites the assistant's text" in found.found[0].said
    prompt = user("1 + 1?") + assistant("<think>hm</think>2") + user("and 1?")
    got, found = levels(
        template.check, subject(grpo(), [{"prompt": prompt}] * 4, tokenizer=tokenizer)
    )
    assert set(got) == {("warning", "chat template")}
    assert "drops turns of the prompt" in found.found[0].said


def test_a_template_that_fails_on_answers_alone_can_be_sampled_from():
    """Its prompts render; that nothing can be trained on later is a warning."""
    tokenizer = tiny.chat_tokenizer()
    fails = "{% for m in messages if m.role == 'assistant' %}{{ m.content.no.such }}{% endfor %}"
    tokenizer.chat_template = fails + tokenizer.chat_template
    got, _ = levels(template.check, subject(grpo(), problems(), tokenizer=tokenizer))
    assert got == [("warning", "chat template")]


def test_a_template_with_a_date():
    tokenizer = tiny.chat_tokenizer()
    tokenizer.chat_template = DATED + tokenizer.chat_template
    got, found = levels(template.check, subject(grpo(), problems(), tokenizer=tokenizer))
    assert got == [("warning", "chat template")]
    assert "today's date" in found.found[0].said


def tagging(*tags):
    """A tokenizer to which these are special, as <think> to some reasoning models'."""
    tokenizer = tiny.chat_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tags)})
    return tokenizer


@pytest.mark.parametrize(
    ("reward", "level"),
    [
        (Accuracy(), "warning"),
        (Format(), "error"),
        (WeightedSum(((1.0, Accuracy()), (0.5, Format()))), "error"),
    ],
)
def test_tags_that_nobody_will_see(reward, level):
    """Named in the prompt, they are no sign of a template."""
    tokenizer = tagging("<think>", "</think>")
    system = [{"role": "system", "content": "Think in <think></think>."}]
    rows = problems(prompt=lambda i, row: system + row["prompt"])
    got, found = levels(template.check, subject(grpo(reward=reward), rows, tokenizer=tokenizer))
    assert got == [(level, "tags")]
    assert "<think> and </think> are special" in found.found[0].said
    assert levels(template.check, subject(grpo(reward=reward), rows))[0] == []
    rendered = problems(prompt=lambda i, row: user(f"<|im_start|>user {i} + {i + 1}<|im_end|>"))
    got, _ = levels(template.check, subject(grpo(), rendered, tokenizer=tiny.chat_tokenizer()))
    assert got == [("error", "chat template")]


@pytest.mark.parametrize(
    ("added", "said", "level"),
    [
        (["<image>"], "", "note"),  # as of Gemma 3's text models
        (["<image>"], "<image> ", "error"),
        (["<image>", "<audio>"], "", "error"),
    ],
)
def test_a_token_beyond_the_embedding(added, said, level):
    tokenizer = tiny.chat_tokenizer()
    size = len(tokenizer)
    tokenizer.add_tokens(added)
    model = LlamaConfig(vocab_size=size, eos_token_id=2)
    rows = problems(prompt=lambda i, row: user(f"{said}{i} + {i + 1}?"))
    looked = subject(grpo(), rows, tokenizer=tokenizer, model=model)
    assert levels(vocabulary.check, looked)[0] == [(level, "vocabulary")]


@pytest.mark.parametrize("name", ["pad_token", "eos_token"])
def test_a_pad_or_end_token_beyond_the_embedding(name):
    tokenizer = tiny.chat_tokenizer()
    model = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=2)
    tokenizer.add_special_tokens({name: "<new>"})
    looked = subject(grpo(), problems(), tokenizer=tokenizer, model=model)
    assert levels(vocabulary.check, looked)[0] == [("error", "vocabulary")]


def test_a_base_model_s_end_token_is_not_the_chat_s():
    """As Qwen2.5's: config.json and tokenizer say <|endoftext|>, the template <|im_end|>."""
    tokenizer = tiny.chat_tokenizer()
    tokenizer.eos_token = "<|pad|>"
    base = LlamaConfig(vocab_size=100, eos_token_id=0)
    for config, level in ((grpo(model="base"), "warning"), (grpo(model="@sft"), "note")):
        looked = subject(config, problems(), tokenizer=tokenizer, model=base)
        got, found = levels(endings.check, looked)
        assert got == [(level, "end token")]
        assert "<|im_end|>" in found.found[0].said


@pytest.mark.parametrize(
    ("nats", "entropy", "model", "level"),
    [
        (3.7, 3.5, "m", "note"),
        (10.9, 10.8, "m", "warning"),  # drawn at random, and a folder of its own
        (10.9, 10.8, "random:m", "note"),
        (10.0, 5.0, "m", "error"),  # SmolLM2 with its tokens' ids exchanged: 10 to 14 nats
        (12.0, None, "m", "warning"),
    ],
)
def test_a_model_that_is_sure_of_other_words(nats, entropy, model, level):
    known = SimpleNamespace(model=SimpleNamespace(config=LlamaConfig(vocab_size=49152)))
    found = Findings()
    certain = knowing.strange(nats, sft(model=model), known, found, entropy=entropy)
    assert [each.level for each in found.found] == [level]
    assert certain == (level == "error")


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"eps_high": 20.0}, "clipping"),
        ({"entropy": 5.0}, "entropy"),
        ({"entropy": -1e-3}, "entropy"),
    ],
    ids=str,
)
def test_values_that_are_hardly_meant(changes, check):
    got, _ = levels(values.check, subject(grpo(prompts=4, **changes), problems()), parameters=1)
    assert got == [("warning", check)]


def test_a_label_that_hardly_occurs():
    rows = [row | {"label": i != 3} for i, row in enumerate(answered(problems(count=60)))]
    config = {"model": "m", "data": SimpleNamespace(name="rows")}
    got, found = levels(preferences.check, subject(Kto(**config), rows))
    assert got == [("warning", "labels")]
    assert "--undesirable-weight 59" in found.found[0].cure
    weighted = Kto(**config, undesirable_weight=59.0)
    assert levels(preferences.check, subject(weighted, rows))[0] == []


def test_one_answer_to_all():
    rows = [row | {"completion": assistant("I do not know.")} for row in problems(count=20)]
    assert levels(contents.check, subject(sft(), rows))[0] == [("warning", "text")]


ROUTE = '{"from": "Paris", "to": "London"}'
PERSON = '[{"role": "Engineer", "company": "X"}]'
DEEP = '[{"a":' * 20_000 + "}" * 20_000 + "]"


@pytest.mark.parametrize("answer", [ROUTE, PERSON, "{{1}, {2}}", DEEP], ids=["1", "2", "3", "4"])
def test_answers_that_are_no_messages_written_out(answer):
    rows = [contents.spoken(row | {"completion": assistant(answer)}) for row in problems()]
    assert not contents._written_out(rows, found := Findings()) and found.found == []


@pytest.mark.parametrize("value", [True, [], [7], 1.5, [{"role": "assistant"}], "x plus y?"])
def test_columns_that_a_stage_does_not_read_may_hold_anything(value):
    rows = [row | {"completion": value, "chosen": value} for row in problems()]
    assert levels(contents.check, subject(grpo(), rows))[0] == []
    assert levels(template._markup, subject(grpo(), rows), prompt=rows[0]["prompt"])[0] == []


def test_a_text_is_read_by_itself():
    """A tokenizer may have no token for what would stand between two."""

    class Letters:
        unk_token_id, unk_token, all_special_tokens = 0, "?", ()

        def __call__(self, text, **_):
            return {"input_ids": [1 + ord(letter) if letter != "\n" else 0 for letter in text]}

    looked = replace(subject(sft(), answered(problems())), tokenizer=Letters())
    assert levels(contents.check, looked)[0] == []


def test_what_latex_writes_in_braces_was_not_forgotten():
    left = [r"\frac{x}{y}", r"\mathbb{R}", r"\boxed{answer}", "x^{n}_{i}"]
    assert not any(map(contents._PLACEHOLDER.search, left))
    assert all(map(contents._PLACEHOLDER.search, ["Solve: {question}", "{{ question }}", "({q})"]))


def test_the_few_numbers_of_a_short_prompt_stand_in_any_long_answer():
    prompts = [frozenset({"1", "2"})] * 4
    prompts += [frozenset({str(n), str(n + 1)}) for n in range(100, 140)]
    moved = [" ".join(prompts[(i + 1) % 44]) for i in range(44)]
    assert preferences._belonging(prompts, ["1. 2. 3. 4."] * 44).elsewhere == 0
    assert preferences._belonging(prompts, moved).elsewhere > 0.8


def test_the_nearest_ancestor_stands_for_an_input_that_is_to_be_made(tmp_path):
    stages = {stage.name: stage for stage in RECIPE.stages}
    for name in ("aligned", "student", "helpful"):
        located = nearest(stages[name], RECIPE.stages, tmp_path, recipe="tiny-r1")
        assert (located.kind, Path(located.path).name) == ("random", "tiny_model")


def test_a_later_stage_is_checked_with_its_ancestor_s_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stages = {stage.name: stage for stage in RECIPE.stages}
    launch = Launch(
        recipe="tiny-r1", out=tmp_path / "run", resume=False, check=True, report_to="none"
    )
    assert check_foreseen(stages["aligned"], RECIPE.stages, launch) == 16
    short = replace(stages["aligned"], sampling=Sampling(max_prompt_tokens=8, max_tokens=16))
    with pytest.raises(PreflightError, match=r"--sampling\.max-prompt-tokens 8"):
        check_foreseen(short, RECIPE.stages, launch)
