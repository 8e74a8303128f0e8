"""Distillation: what a step takes its completions from, and that it brings the student closer."""

import json
from collections import Counter

import distill_stage
import pytest
import tiny
import torch
import trl_peer
from datasets import Dataset

import data
from align.config import ConfigError, Distill, Optim, Sampling
from align.models import ModelError
from align.rollout.hf import HfEngine
from align.stages.checks import checked_rows
from align.stages.distill import Own
from align.training.optim import adamw
from align.vocabulary import check_teacher

KIND = {"model": "m", "teacher": "t", "data": data.Arithmetic()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return distill_stage.folders(tmp_path_factory.mktemp("models"))


def test_the_share_is_exact_over_the_run_and_drawn_within_a_step(folders):
    made = tiny.rollout(3)
    for share in (0.0, 0.3, 0.5, 1.0):
        stage = distill_stage.stage(*folders, made, on_policy=share, seed=4)
        steps = [stage.sampled(step) for step in range(1, 41)]
        assert sum(map(len, steps)) == round(share * 120)
        assert all(places <= set(range(3 * i, 3 * i + 3)) for i, places in enumerate(steps))
        offsets = Counter(place % 3 for places in steps for place in places)
        assert share in (0.0, 1.0) or len(offsets) == 3  # not always the same of a step's places
        again = distill_stage.stage(*folders, made, on_policy=share, seed=4)
        assert [again.sampled(step) for step in range(1, 41)] == steps


@pytest.mark.parametrize(("share", "written", "own"), [(0.0, 0, 4), (0.5, 2, 2), (1.0, 4, 0)])
def test_a_step_asks_for_its_share_and_takes_the_rest_from_the_rows(share, written, own, folders):
    made = tiny.rollout(4)
    stage = distill_stage.stage(*folders, made, on_policy=share)
    groups = stage._groups(1)
    assert len(groups) == 4
    assert sum(isinstance(group, Own) for group in groups) == own
    asked = stage.engine.asked
    assert len(asked) == (written > 0) and sum(map(len, asked)) == written
    assert len({group.row for group in groups}) == 4
    for group in groups:
        if isinstance(group, Own):
            assert [one.ids for one in group.samples] == [[*group.prompt[::-1], trl_peer.EOS]]
            assert group.texts == [distill_stage.words(group.prompt[::-1])]
    batch = stage.collect(1)
    assert batch.metrics["on_policy"] == share
    assert len(batch.samples) == own + 4 * written
    assert [row["on_policy"] for row in batch.samples].count(False) == own
    assert {row["solution"] for row in batch.samples} == {"4"}
    tokens = sum(len(pack.target) for pack in batch.minibatches[0])
    weights = torch.cat([pack.columns["weight"] for pack in batch.minibatches[0]])
    torch.testing.assert_close(weights, torch.full((tokens,), 1 / tokens))
    assert batch.metrics["length"] == tokens / len(batch.samples)


def test_a_rows_own_completion_is_cut_at_the_limit(folders):
    """The teacher has something to say at any place of a text, so the part is as good."""
    made = tiny.rollout(2)
    sampling = Sampling(max_prompt_tokens=64, max_tokens=2)
    stage = distill_stage.stage(*folders, made, on_policy=0.0, sampling=sampling)
    batch = stage.collect(1)
    assert [row["length"] for row in batch.samples] == [2, 2]
    assert batch.metrics["truncated"] == 1.0


def test_samples_logged_limits_the_log(folders):
    batch = distill_stage.stage(*folders, tiny.rollout(3), samples_logged=5).collect(1)
    assert len(batch.samples) == 5


def trained(folders, tmp_path, steps, **config):
    """Mean forward and reverse KL of each step, sampled by the student itself."""
    made = tiny.rollout(4)

    def engine(model, config):
        return HfEngine(model, sampling=config.sampling, stop=[trl_peer.EOS], autocast=None)

    stage = distill_stage.stage(
        *folders, made, engine=engine, steps=steps, optim=Optim(lr=1e-2), samples=2, **config
    )
    optimizer = adamw(stage.context.unwrapped, stage.config.optim)
    before = [weight.clone() for weight in stage.teacher.parameters()]
    with tiny.loop(stage, optimizer, tmp_path) as loop:
        assert loop.run(resume=False)
    for weight, old in zip(stage.teacher.parameters(), before, strict=True):
        assert torch.equal(weight, old)
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_student_comes_closer_to_the_teacher(beta, share, folders, tmp_path):
    rows = trained(folders, tmp_path, 16, beta=beta, on_policy=share)
    for name in ("loss", "kl/forward", "kl/reverse"):
        first, last = rows[0][name], sum(row[name] for row in rows[-3:]) / 3
        assert last < 0.5 * first, name
    assert rows[0]["loss"] > 0.02


def test_rows_of_whole_chats_are_prompts_with_a_last_answer(folders):
    """As a `sample` stage writes them."""
    from align.stages.distill import _asked

    chat = [*data.rows.user("w3 w4"), *data.rows.assistant("w5"), *data.rows.user("w6")]
    last = data.rows.assistant("w7")
    table = [{"messages": chat + last, "solution": "7", "provenance": {"row": 1}}]
    table.append({"prompt": chat[:1], "completion": last, "solution": None})
    found = _asked(data.rows.dataset(table))
    assert found["prompt"][:] == [chat, chat[:1]]
    assert found["completion"][:] == [last, last]
    assert found["solution"][:] == ["7", None]


def distill(rows, **config):
    class Rows:
        name = "rows"

        def rows(self):
            return Dataset.from_list(rows)

    return Distill(**(KIND | {"data": Rows()} | config))


def test_rows_need_a_completion_only_where_it_is_to_be_followed():
    chat = {"messages": [*data.rows.user("a"), *data.rows.assistant("b")]}
    for rows in ([{"prompt": "a"}], [{"prompt": "a", "solution": None}], [chat]):
        assert len(checked_rows(distill(rows))) == 1
    with pytest.raises(data.RowError, match=r"expected a value, for distill \(or messages\)"):
        checked_rows(distill([{"solution": "a"}]))
    with pytest.raises(data.RowError, match="'completion': expected a value, for sft"):
        checked_rows(distill([{"prompt": "a"}], on_policy=0.9))
    assert len(checked_rows(distill([chat], on_policy=0.9))) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("beta", 1.1), ("on_policy", -0.1), ("temperature", 0.0), ("prompts", 0), ("steps", -1)],
)
def test_values_that_cannot_work_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"--{field.replace('_', '-')} {value}: it must be"):
        Distill(**KIND, **{field: value})


def teacher_with(folder, tokenizer):
    """The tokenizer is all that is looked at."""
    tokenizer.save_pretrained(folder)
    return str(folder)


def refused(tokenizer, path):
    with pytest.raises(ModelError) as error:
        check_teacher(tokenizer, path=path)
    return str(error.value)


def test_the_same_tokenizer_is_accepted(tmp_path):
    path = teacher_with(tmp_path / "teacher", tiny.chat_tokenizer())
    check_teacher(tiny.chat_tokenizer(), path=path)


def test_another_vocabulary_is_refused_with_its_first_token_and_the_way_round_it(tmp_path):
    path = teacher_with(tmp_path / "teacher", tiny.chat_tokenizer())
    said = refused(trl_peer.tiny_tokenizer(), path)
    first = tiny.chat_tokenizer().convert_ids_to_tokens(0)
    assert first != "<pad>" and f"id 0 is '<pad>' here and {first!r} there" in said
    assert f"the teacher {path} has another tokenizer than the student" in said
    assert "train the student on what the teacher writes (a `sample` stage, then `sft`)" in said


def test_a_token_more_is_refused(tmp_path):
    other = tiny.chat_tokenizer()
    other.add_tokens(["<more>"])
    said = refused(tiny.chat_tokenizer(), teacher_with(tmp_path / "teacher", other))
    assert f"id {len(other) - 1} is no token here and '<more>' there" in said


def test_another_special_token_is_refused(tmp_path):
    one, other = trl_peer.tiny_tokenizer(), trl_peer.tiny_tokenizer()
    other.add_special_tokens({"additional_special_tokens": ["w7"]})
    said = refused(one, teacher_with(tmp_path / "teacher", other))
    assert "'w7', id 7, is a special token in one of them alone" in said


def test_another_end_is_refused(tmp_path):
    one, other = trl_peer.tiny_tokenizer(), trl_peer.tiny_tokenizer()
    other.eos_token = "<pad>"
    said = refused(one, teacher_with(tmp_path / "teacher", other))
    assert "a completion ends with '<eos>' here and with '<pad>' there" in said


def test_a_teacher_that_takes_no_packs_makes_both_padded(tmp_path, folders, capsys):
    from transformers import MistralConfig

    model = tiny.model(MistralConfig, sliding_window=40)
    model.save_pretrained(tmp_path / "teacher")
    trl_peer.tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    stage = distill_stage.stage(tmp_path / "teacher", folders[1], tiny.rollout(2))
    assert stage.context.padded
    assert "the teacher: it looks back 40 tokens only" in capsys.readouterr().out
    assert all(pack.padded for pack in stage.collect(1).minibatches[0])
