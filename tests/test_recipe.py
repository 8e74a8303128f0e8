"""A recipe is checked when it is built; its name is its module's."""

import dataclasses
import json
import sys

import pytest

import data
import recipes
import rewards
from align import recipe
from align.config import Evaluation, Grpo, Optim, Sft
from align.files import folder
from align.recipe import Recipe, RecipeError

PROBLEMS = data.Arithmetic(size=10)
GOOD = """
from align.config import Sft
from align.recipe import Recipe
import data

SFT = Sft(name="sft", model="some/model", data=data.Arithmetic(size=10))
RECIPE = Recipe(name="good", stages=(SFT,))
"""


def _sft(name="sft", model="some/model"):
    return Sft(name=name, model=model, data=PROBLEMS)


def _grpo(name="grpo", model="@sft"):
    return Grpo(name=name, model=model, data=PROBLEMS, reward=rewards.Accuracy())


@pytest.fixture
def other_recipes(tmp_path, monkeypatch):
    """A folder of recipes instead of the project's own."""
    monkeypatch.setattr(recipes, "__path__", [str(tmp_path)])
    own = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("recipes.")}

    def write(module, text):
        (tmp_path / f"{module}.py").write_text(text)

    yield write
    for name in [name for name in sys.modules if name.startswith("recipes.")]:
        del sys.modules[name]
    sys.modules.update(own)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("qwen0_5b", "qwen0.5b"),
        ("qwen0_5b_zero", "qwen0.5b-zero"),
        ("llama3_1_8b_r1", "llama3.1.8b-r1"),
        ("smollm2", "smollm2"),
        ("a_1", "a-1"),
        ("v1_x", "v1-x"),
    ],
)
def test_a_modules_name_and_the_recipes(other_recipes, module, name):
    other_recipes(module, GOOD)
    assert recipe.names() == (name,)
    assert recipe.load(name).name == "good"


def test_private_modules_are_no_recipes(other_recipes):
    other_recipes("_shared", "raise RuntimeError('imported')")
    other_recipes("zzz", "RECIPE = 1")
    other_recipes("aaa", "RECIPE = 2")
    assert recipe.names() == ("aaa", "zzz")


def test_names_are_listed_without_importing_any(other_recipes):
    other_recipes("broken", "raise RuntimeError('imported')")
    assert recipe.names() == ("broken",)
    with pytest.raises(RecipeError, match="imported"):
        recipe.load("broken")


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("RECIPE = Recipe(name='r', stages=(stge,))", "NameError: name 'stge' is not defined"),
        ("RECIPE = Recipe(name='r', stages=())", "recipe r has no stages"),
        ("RECIPE = Recipe(name='r' stages=())", "SyntaxError: invalid syntax"),
        ("import nobody_has_this", "ModuleNotFoundError: No module named 'nobody_has_this'"),
        ("import data; data.resolve('./none.jsonl')", ""),
        ("raise ValueError('a\\nb')", "ValueError: a b"),
    ],
)
def test_what_a_recipes_file_raises_is_one_line_with_its_place(other_recipes, last, said):
    other_recipes("broken", f"from align.recipe import Recipe\n\n{last}\n")
    with pytest.raises(RecipeError) as error:
        recipe.load("broken")
    assert str(error.value).startswith(f"recipes/broken.py, line 3: {said}")
    assert "\n" not in str(error.value)


def test_the_line_named_is_that_of_the_recipes_file_it_lies_in(other_recipes):
    other_recipes("_shared", "\nvalue = 1 / 0\n")
    other_recipes("broken", "import recipes._shared\n")
    with pytest.raises(RecipeError, match=r"^recipes/_shared.py, line 2: ZeroDivisionError: "):
        recipe.load("broken")


@pytest.mark.parametrize(
    ("text", "said"),
    [("RECIPES = 1", "has no RECIPE: "), ("RECIPE = []", "has a list as RECIPE: ")],
)
def test_a_file_without_a_recipe(other_recipes, text, said):
    other_recipes("empty", text)
    with pytest.raises(RecipeError, match=f"^recipes/empty.py {said}end it with RECIPE = Recipe"):
        recipe.load("empty")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("tny", "tiny"), ("qwen0.5", "qwen0.5b"), ("qwen0_5b_zero", "qwen0.5b-zero")],
)
def test_an_unknown_name_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(RecipeError) as error:
        recipe.load(typed)
    assert str(error.value).startswith(f"no recipe called {typed!r}; did you mean {meant}?")
    for name in recipe.names():
        assert name in str(error.value)


def test_a_name_like_none_of_them_is_answered_with_all():
    with pytest.raises(RecipeError) as error:
        recipe.load("#")
    assert "did you mean" not in str(error.value)
    assert "tiny" in str(error.value)


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_loads_under_its_own_name(name):
    found = recipe.load(name)
    assert found.name == name
    assert found.stages


@pytest.mark.parametrize("name", recipe.names())
def test_every_stages_configuration_is_json_and_whole(name):
    found = recipe.load(name)
    for config in (*found.stages, *found.evaluations):
        described = folder.described(config)
        assert json.loads(json.dumps(described, allow_nan=False)) == described
        assert described["kind"] == getattr(config, "kind", "Evaluation")
        fields = {field.name for field in dataclasses.fields(config)}
        assert described.keys() == fields | {"kind"}
        assert described["data"]["kind"] == type(config.data).__name__


def test_a_reward_is_described_with_its_parameters():
    reward = rewards.WeightedSum(((1.0, rewards.Accuracy(unparseable=0.25)), (0.5, len)))
    described = folder.described(reward)
    (first, accuracy), (second, function) = described["terms"]
    assert (first, second) == (1.0, 0.5)
    assert accuracy["kind"] == "Accuracy"
    assert accuracy["unparseable"] == 0.25
    assert function == {"kind": "BatchFunction", "fn": "len", "patience": 60.0}


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(RecipeError, match="recipe r: two stages are called 'sft'"):
        Recipe(name="r", stages=(_sft(), _sft()))


def test_a_reference_to_a_later_stage_is_refused_when_the_recipe_is_built():
    with pytest.raises(RecipeError) as error:
        Recipe(name="r", stages=(_sft("a"), _grpo("b", model="@later"), _sft("later")))
    assert str(error.value) == (
        "recipe r: stage 'b' starts from '@later', but the models of the stages before it are: @a"
    )


@pytest.mark.parametrize("model", ["@grpo", "@stf"])
def test_a_reference_to_itself_or_to_nothing_is_refused(model):
    with pytest.raises(RecipeError, match=f"starts from '{model}', .* are: none"):
        Recipe(name="r", stages=(_grpo(model=model),))


def test_a_reference_to_any_earlier_stage_is_fine():
    built = Recipe(name="r", stages=(_sft("a"), _sft("b", model="@a"), _grpo("c", model="@a")))
    assert [stage.model for stage in built.stages] == ["some/model", "@a", "@a"]


def test_a_recipe_without_stages_is_refused():
    with pytest.raises(RecipeError, match="recipe r has no stages"):
        Recipe(name="r", stages=())


def test_a_stage_is_found_by_its_kind_and_among_several_by_its_name():
    built = Recipe(name="r", stages=(_sft(), _grpo("one"), _grpo("two", model="@one")))
    assert built.stage(Sft).name == "sft"
    assert built.stage(Grpo, "two").name == "two"
    with pytest.raises(RecipeError) as error:
        built.stage(Grpo)
    assert str(error.value) == (
        "recipe r has 2 grpo stages: choose one with --stage (grpo stages: one, two)"
    )
    with pytest.raises(RecipeError, match=r"no grpo stage called 'sft' \(grpo stages: one, two\)"):
        built.stage(Grpo, "sft")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (_sft(), "model"),
        (_grpo(), "steps"),
        (Optim(), "lr"),
        (Evaluation(data=PROBLEMS), "limit"),
        (Recipe(name="r", stages=(_sft(),)), "stages"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_configuration_is_frozen_and_by_keyword(value, field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, 1)
    with pytest.raises(TypeError):
        type(value)(1)


def test_a_misspelt_field_fails_where_it_is_written():
    with pytest.raises(TypeError, match="learning_rate"):
        Optim(learning_rate=1e-6)
