"""Which data a model has seen: that of its stage, of the stages before it, as they really ran."""

import json
from dataclasses import replace

import data
from align.config import Grpo, Sft
from align.evaluation import trained_on
from align.evaluation.trained_on import training_of
from align.files.folder import described
from align.recipe import Recipe
from data.contamination import prompt_texts
from rewards import Accuracy

SFT = data.Arithmetic(size=20, seed=1)
GRPO = data.Mixture(sources=((1.0, data.Arithmetic(size=20, seed=2)), (1.0, SFT)))
OTHER = data.Arithmetic(size=20, seed=3, operators=1)


def recipe():
    return Recipe(
        name="x",
        stages=(
            Sft(name="sft", model="org/base", data=SFT),
            Sft(name="aside", model="org/base", data=OTHER),
            Grpo(name="grpo", model="@sft", data=GRPO, reward=Accuracy()),
            Grpo(name="again", model="@grpo", data=GRPO, reward=Accuracy()),
        ),
    )


def seen(model, out):
    return [(each.stage, each.source) for each in training_of(recipe(), str(model), out)]


def test_a_stage_has_seen_its_own_data_and_that_of_the_stages_it_came_from(tmp_path):
    assert seen(tmp_path / "sft" / "model", tmp_path) == [("sft", SFT)]
    assert seen(tmp_path / "aside" / "model", tmp_path) == [("aside", OTHER)]
    # The same source is read once, and named by the first stage that has it.
    assert seen(tmp_path / "again" / "model", tmp_path) == [("sft", SFT), ("grpo", GRPO)]
    assert seen(tmp_path / "elsewhere" / "sft" / "model", tmp_path) == []
    assert seen("org/base", tmp_path) == []


def test_a_stage_that_ran_is_asked_for_the_data_it_ran_with(tmp_path):
    (tmp_path / "sft").mkdir()
    ran = replace(recipe().stages[0], data=OTHER)
    written = tmp_path / "sft" / "config.json"
    written.write_text(json.dumps(described(ran)))
    assert seen(tmp_path / "sft" / "model", tmp_path) == [("sft", OTHER)]
    mixed = replace(recipe().stages[0], data=GRPO)
    written.write_text(json.dumps(described(mixed)))
    assert seen(tmp_path / "sft" / "model", tmp_path) == [("sft", GRPO)]
    old = described(ran)
    old["data"]["gone"] = 1
    written.write_text(json.dumps(old))
    assert seen(tmp_path / "sft" / "model", tmp_path) == [("sft", SFT)]


def test_the_overlap_with_each_source_and_what_could_not_be_read(tmp_path):
    prompts = [*list(prompt_texts(SFT.rows()))[:5], "Compute 1 + 1 + 1 + 1."]
    training = training_of(recipe(), str(tmp_path / "grpo" / "model"), tmp_path)
    training.append(trained_on.TrainingData(stage="far", source=data.Hub(id="no/such")))
    training.append(trained_on.TrainingData(stage="later", source=data.FromStage(stage="later")))
    found = trained_on.check(prompts, training, tmp_path)
    assert (found["n"], found["prompts"], found["matched"]) == (13, 6, 5)
    assert found["share"] == 5 / 6
    sft, grpo = found["sources"]
    assert (sft["stage"], sft["name"]) == ("sft", "arithmetic")
    assert (sft["training"], sft["matched"]) == (20, 5)
    assert sft["examples"][1] == {"row": 1, "training_row": 1, "words": prompts[1][:-1].lower()}
    assert (grpo["training"], grpo["matched"]) == (40, 5)  # the same five, counted once above
    assert [each["stage"] for each in found["unread"]] == ["far", "later"]
    said = trained_on.line(found)
    assert said.startswith("WARNING, contamination: 5 of 6 prompts (83.3%) stand in the training")
    assert said.endswith("not read: such of far; not read: @later of later")
    json.dumps(found)


def test_what_a_stage_wrote_is_read_in_the_run_folder(tmp_path):
    (tmp_path / "later").mkdir()
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    (tmp_path / "later" / "data.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    (tmp_path / "later" / "done.json").write_text("{}")
    training = [trained_on.TrainingData(stage="sft", source=data.FromStage(stage="later"))]
    found = trained_on.check(["why?", "how?"], training, tmp_path)
    assert (found["matched"], found["unread"]) == (1, [])


def test_no_overlap_is_said_quietly(tmp_path):
    training = [trained_on.TrainingData(stage="sft", source=SFT)]
    said = trained_on.line(trained_on.check(["Compute 1 + 1"], training, tmp_path))
    assert said == "contamination: no prompt stands in the training data arithmetic (20)"
    nothing = trained_on.check(["x"], [replace(training[0], source=data.Hub(id="a/b"))], tmp_path)
    assert trained_on.line(nothing) == "contamination: not checked; not read: b of sft"
