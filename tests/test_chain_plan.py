"""What the chain decides to run, on run folders whose stages are written without training."""

import dataclasses
import functools
import json

import pytest

import data
import rewards
from align.chain.plan import missing, plan
from align.chain.record import Record, is_begun, set_aside
from align.config import Checkpoints, Compute, Keep, Optim, Sample, Sft
from align.files import manifest
from align.files.folder import FolderError, described
from align.files.locate import MissingError, locate
from align.recipe import Recipe, RecipeError
from align.references import parents, references

ROWS = data.Arithmetic(size=4)
# d reads c, c reads b, b and e read a.
PARENT = {"a": "random:recipes/tiny_model", "b": "@a", "c": "@b", "d": "@c", "e": "@a"}


def stages(**changed):
    """Five stages, with the fields of some of them changed: b={"lr": 1.0}."""
    made = [Sft(name=name, model=model, data=ROWS) for name, model in PARENT.items()]
    return [dataclasses.replace(one, **changed.get(one.name, {})) for one in made]


def write(run, stage, *, weights="w", done=True):
    """Leave what a stage leaves, without training."""
    folder = run / stage.name
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"")
    (folder / "model" / "tokenizer.json").write_text("{}")
    located = {name: locate(name, run, recipe="r") for name in references(stage)}
    manifest.begin(folder, stage, manifest.basis(stage, located, run), recipe="r")
    if done:
        (folder / "done.json").write_text(json.dumps({"weights": f"{weights} of {stage.name}"}))


@pytest.fixture
def run(tmp_path):
    """A run folder with all five complete."""
    for stage in stages():
        write(tmp_path, stage)
    return tmp_path


def actions(run, *args, **changed):
    return {n.stage.name: n.action for n in plan(stages(**changed), run, recipe="r", again=args)}


ALL = dict.fromkeys(PARENT, "reuse")


def test_nothing_touched_nothing_runs(run):
    assert actions(run) == ALL


def test_an_empty_folder_runs_everything(tmp_path):
    assert actions(tmp_path) == dict.fromkeys(PARENT, "run")


def test_a_changed_rate_runs_the_stage_and_its_descendants_again_and_nothing_else(run):
    found = actions(run, c={"optim": Optim(lr=1.0)})
    assert found == ALL | {"c": "run again", "d": "run again"}
    why = {n.stage.name: n.why for n in plan(stages(c={"seed": 5}), run, recipe="r")}
    assert why["c"] == "seed: 0 -> 5"
    assert why["d"] == "c will have changed"


def test_what_does_not_change_the_result_runs_nothing(run):
    assert actions(run, b={"checkpoints": Checkpoints(every=1)}) == ALL
    assert actions(run, b={"compute": Compute(threads=1)}) == ALL
    assert actions(run, b={"compute": Compute(precision="fp32")})["b"] == "run again"


def test_asked_for_from_a_stage(run):
    assert actions(run, "b") == ALL | dict.fromkeys("bcd", "run again")


def test_an_interrupted_stage_resumes(run):
    (run / "d" / "done.json").unlink()
    assert actions(run) == ALL | {"d": "resume"}


def test_an_interrupted_stage_with_other_values_begins_again(run):
    (run / "d" / "done.json").unlink()
    assert actions(run, d={"seed": 1}) == ALL | {"d": "run again"}


def test_other_weights_above_run_everything_below(run):
    """As after a stage was trained again by its own script."""
    (run / "a" / "done.json").write_text(json.dumps({"weights": "others"}))
    assert actions(run) == ALL | dict.fromkeys("bcde", "run again")


def test_a_stage_that_was_deleted_runs_with_everything_below(run):
    (run / "b" / "manifest.json").unlink()
    assert actions(run)["b"] == "run again"  # complete, and nobody knows from what
    (run / "b" / "done.json").unlink()
    assert actions(run) == ALL | {"b": "run", "c": "run again", "d": "run again"}


def test_changed_rows_in_a_file(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    stage = Sft(name="a", model="random:recipes/tiny_model", data=data.Local(path=str(rows)))
    write(tmp_path / "run", stage)
    rows.write_text('{"prompt": "a", "completion": "c"}\n')
    (node,) = plan([stage], tmp_path / "run", recipe="r")
    assert (node.action, node.why) == ("run again", f"the contents of {rows} have changed")
    rows.unlink()
    with pytest.raises(data.DataError, match=r"rows\.jsonl"):
        plan([stage], tmp_path / "run", recipe="r")


def test_a_file_more_or_less_in_a_folder_of_rows(tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    for name in "ab":
        (rows / f"{name}.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    stage = Sft(name="a", model="random:recipes/tiny_model", data=data.Local(path=str(rows)))
    write(tmp_path / "run", stage)
    (rows / "b.jsonl").rename(rows / "c.jsonl")
    (node,) = plan([stage], tmp_path / "run", recipe="r")
    assert node.action == "run again"
    assert "b.jsonl have changed" in node.why and "c.jsonl have changed" in node.why


def test_data_of_an_earlier_stage(run):
    """Found inside a mixture, by the hash that the stage left."""
    mixed = data.Mixture(sources=((1.0, data.FromStage(stage="f")), (1.0, ROWS)))
    reader = Sft(name="g", model="@a", data=mixed)
    assert "stage 'f' has written no data" in missing(reader, run, recipe="r")
    (run / "f").mkdir()
    (run / "f" / "data.jsonl").write_text("")
    (run / "f" / "done.json").write_text('{"data": "one"}')
    assert missing(reader, run, recipe="r") is None
    write(run, reader)
    assert [node.action for node in plan([reader], run, recipe="r")] == ["reuse"]
    (run / "f" / "done.json").write_text('{"data": "other"}')
    (node,) = plan([reader], run, recipe="r")
    assert (node.action, node.why) == ("run again", "what @f wrote has changed")


def test_a_model_that_is_nowhere_is_named(tmp_path):
    gone = Sft(model=str(tmp_path / "gone"), data=ROWS)
    with pytest.raises(MissingError, match="gone"):
        plan([gone], tmp_path, recipe="r")


def test_set_aside_keeps_the_old_result_without_its_checkpoints(run):
    (run / "c" / "checkpoints").mkdir()
    (run / "evaluations").mkdir()
    for name in ("c.json", "c.jsonl", "c.gsm8k.json", "b.json"):
        (run / "evaluations" / name).write_text("{}")
    nodes = plan(stages(c={"seed": 5}), run, recipe="r")
    assert list(set_aside(run, nodes)) == ["d", "c"]
    assert sorted(path.name for path in (run / "replaced" / "c").glob("c.*")) == [
        "c.gsm8k.json", "c.json", "c.jsonl",
    ]  # fmt: skip
    assert not (run / "c").exists() and not (run / "d").exists()
    assert not (run / "replaced" / "c" / "checkpoints").exists()
    assert (run / "replaced" / "c" / "model" / "config.json").is_file()
    assert (run / "evaluations" / "b.json").is_file()
    write(run, stages()[2])
    write(run, stages()[3])
    set_aside(run, plan(stages(c={"seed": 6}), run, recipe="r"))
    assert (run / "replaced" / "c-2").is_dir()


def test_a_chain_killed_between_two_moves_still_runs_them_all(run, monkeypatch):
    nodes = plan(stages(b={"seed": 5}), run, recipe="r")
    moved, original = [], type(run).rename

    def rename(path, into):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(path.name)
        return original(path, into)

    monkeypatch.setattr(type(run), "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        set_aside(run, nodes)
    monkeypatch.undo()
    assert actions(run, b={"seed": 5}) == ALL | {"b": "run again", "c": "run", "d": "run"}


def test_the_record_says_what_became_of_each(run):
    nodes = plan(stages(d={"seed": 5}), run, recipe="r")
    record = Record(run, Recipe(name="r", stages=tuple(stages())), nodes, begun="d")
    record.done(nodes[0], None)
    record.done(nodes[3], 12.34)
    about = json.loads((run / "chain.json").read_text())
    seen = {n["stage"]: (n["action"], n["seconds"]) for n in about["nodes"]}
    assert seen["a"] == ("reused", None)
    assert seen["d"] == ("ran again", 12.3)
    assert seen["e"] == ("not reached", None)
    assert about["finished"] is None
    assert is_begun(run, "d") and not is_begun(run, "c")
    record.finished()
    assert not is_begun(run, "d")
    assert json.loads((run / "chain.json").read_text())["finished"] >= about["started"]


@pytest.mark.parametrize("text", ['{"from": ', "", "[]", '{"from": "d"}'])
def test_a_record_that_cannot_be_read_is_named(text, tmp_path):
    assert not is_begun(tmp_path, "d")
    (tmp_path / "chain.json").write_text(text)
    with pytest.raises(FolderError, match=r"chain\.json cannot be read .*delete .*chain\.json"):
        is_begun(tmp_path, "d")


@pytest.mark.parametrize(
    ("reference", "wanted"),
    [
        (data.FromStage(stage="nowhere"), "reads '@nowhere'"),
        (data.FromStage(stage="a"), "reads '@a'"),  # which writes a model
    ],
)
def test_a_recipe_refuses_data_that_no_stage_before_writes(reference, wanted):
    with pytest.raises(RecipeError, match=wanted):
        Recipe(name="r", stages=(stages()[0], Sft(name="x", model="@a", data=reference)))


def test_another_choice_among_what_was_sampled_samples_nothing_again(run):
    """What reads the rows runs again; the samples stay where they are."""
    sampler = Sample(
        name="f", model="@a", data=ROWS, reward=rewards.Accuracy(), keep=Keep(per_prompt=1)
    )
    (run / "f").mkdir()
    write(run, sampler)
    (run / "f" / "done.json").write_text('{"data": "one"}')
    (run / "f" / "data.jsonl").write_text("")
    reader = Sft(name="g", model="@a", data=data.FromStage(stage="f"))
    write(run, reader)
    changed = dataclasses.replace(sampler, keep=Keep(per_prompt=2))
    first, second = plan([changed, reader], run, recipe="r")
    assert (first.action, second.action) == ("resume", "run again")
    assert "chosen again" in first.why
    (first,) = plan([dataclasses.replace(changed, samples=9)], run, recipe="r")
    assert first.action == "run again"


def test_other_general_rows_sample_nothing_again(run, tmp_path):
    rows = tmp_path / "general.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    general = {"general": data.Local(path=str(rows)), "general_share": 0.5}
    sampler = Sample(name="f", model="@a", data=ROWS, reward=rewards.Accuracy(), **general)
    write(run, sampler)
    rows.write_text('{"prompt": "a", "completion": "c"}\n')
    (node,) = plan([sampler], run, recipe="r")
    assert (node.action, "chosen again" in node.why) == ("resume", True)


def test_a_stage_behind_an_alternative_is_a_parent(run):
    reader = Sft(name="g", model="nowhere | layers:1:@nothing | @b", data=ROWS)
    assert parents(dataclasses.replace(reader, model="layers:1:nowhere | @b")) == ["b"]
    reader = dataclasses.replace(reader, model="nowhere | @b")
    write(run, reader)
    *_, node = plan([*stages(b={"seed": 1}), reader], run, recipe="r")
    assert (node.action, node.why) == ("run again", "b will have changed")


@pytest.mark.parametrize("count", ["x", "0", "1.5"])
def test_a_student_of_no_number_of_layers_is_refused(count):
    with pytest.raises(RecipeError, match=f"{count!r} is no number of layers"):
        Recipe(name="r", stages=(stages()[0], Sft(name="x", model=f"layers:{count}:@a", data=ROWS)))


def test_rewards_are_told_apart_by_what_they_hold():
    def make(value):
        return lambda completions, **columns: [value for _ in completions]

    def reward(completions, scale=1.0, **columns):
        return [scale for _ in completions]

    assert described(make(1)) == described(make(1)) != described(make(2))
    one, same, other = (functools.partial(reward, scale=scale) for scale in (1.0, 1.0, 2.0))
    assert described(one) == described(same) != described(other)
    assert " at 0x" not in str(described(one))  # an address is another one in every process


def test_missing_rows_of_a_late_stage_are_named_before_anything_runs(tmp_path):
    late = Sft(name="z", model="@a", data=data.Local(path=str(tmp_path / "gone.jsonl")))
    with pytest.raises(data.DataError, match=r"gone\.jsonl"):
        plan([stages()[0], late], tmp_path / "run", recipe="r")
