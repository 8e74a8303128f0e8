"""Who may import whom: the layers of the design, held over the import statements of the tree."""

import ast
import json
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("scripts", "recipes", "align", "data", "rewards")

# Lowest first; a module imports from its own layer or from one below.
LAYERS = (
    ("align.config", "align.objectives", "rewards"),
    (
        "align.packing",
        "align.recipe",
        "align.references",
        "data",
    ),
    (
        "align.adapters",
        "align.evaluation",
        "align.files",
        "align.modeling",
        "align.processes",
        "align.terminal",
        "align.training",
        "align.checkpoint",
        "align.doctor",
        "align.layers",
        "align.loop",
        "align.model_reward",
        "align.models",
        "align.order",
        "align.planner",
        "align.probe",
        "align.report",
        "align.rollout",
        "align.text_scorer",
        "align.vocabulary",
    ),
    (
        "align.bench",
        "align.evaluate",
        "align.preflight",
        "align.stages",
    ),
    ("align.chain", "align.cli", "recipes"),
    ("scripts",),
)
# A configuration says what a data source is; a recipe's name is looked up among the recipes.
# What is around a stage begins with a preflight, whose trial runs the stage's own functions.
ALLOWED = {
    ("align.config", "data"),
    ("align.recipe", "recipes"),
    ("align.preflight", "align.stages"),
}
WITHOUT_TORCH = ("rewards", "data", "align.config", "align.recipe", "align.cli")


@cache
def modules():
    """Every module of the tree by name, with its syntax tree."""
    found = {}
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            parts = file.relative_to(REPOSITORY).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(file.read_text(), filename=str(file))
    return found


def _imported(tree):
    """Dotted names of everything imported anywhere in a module, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_of(dotted):
    """The module of the tree that a dotted name lies in, None for other people's."""
    while dotted:
        if dotted in modules():
            return dotted
        dotted = dotted.rpartition(".")[0]
    return None


def edges():
    """(importer, imported) over the modules of the tree."""
    for name, tree in modules().items():
        for dotted in _imported(tree):
            target = _module_of(dotted)
            if target is not None and target != name:
                yield name, target


def unit(module):
    """The entry of LAYERS that a module belongs to."""
    fitting = [
        entry
        for layer in LAYERS
        for entry in layer
        if module == entry or module.startswith(entry + ".")
    ]
    assert len(fitting) == 1, f"{module}: say in LAYERS where it belongs"
    return fitting[0]


def layer(entry):
    return next(i for i, entries in enumerate(LAYERS) if entry in entries)


def test_the_tree_is_what_the_layers_speak_of():
    assert len(modules()) > 60
    known = {unit(module) for module in modules() if module not in ("align", "scripts")}
    assert known == {entry for entries in LAYERS for entry in entries} - {"scripts"} | {"scripts"}


def test_imports_go_down():
    wrong = [
        f"{importer} imports {imported}"
        for importer, imported in edges()
        if layer(unit(imported)) > layer(unit(importer))
        and (unit(importer), unit(imported)) not in ALLOWED
    ]
    assert wrong == []


def test_the_exceptions_are_still_needed():
    seen = {(unit(importer), unit(imported)) for importer, imported in edges()}
    assert seen >= ALLOWED


def test_nothing_imports_in_a_circle():
    """Over parts, not files: inside a package its own files know each other."""
    graph = {}
    for importer, imported in edges():
        pair = (unit(importer), unit(imported))
        if pair[0] != pair[1] and pair not in ALLOWED:
            graph.setdefault(pair[0], set()).add(pair[1])
    TopologicalSorter(graph).prepare()  # raises CycleError and shows the circle


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("rewards", {"torch", "align", "data", "recipes", "transformers", "trl", "accelerate"}),
        ("data", {"torch", "align", "recipes", "accelerate"}),
        ("recipes", {"torch", "transformers"}),
        ("align.objectives", {"transformers", "trl", "accelerate", "align.config", "data"}),
    ],
)
def test_what_a_package_never_imports(package, never):
    """Nowhere, not even inside a function."""
    for name, tree in modules().items():
        if name == package or name.startswith(package + "."):
            for dotted in _imported(tree):
                heads = {dotted, dotted.partition(".")[0], dotted.rpartition(".")[0]}
                assert not heads & never, f"{name} imports {dotted}"


def test_objectives_know_torch_and_each_other_alone():
    for name, tree in modules().items():
        if name.startswith("align.objectives"):
            for dotted in _imported(tree):
                head = dotted.partition(".")[0]
                own = dotted.startswith("align.objectives")
                assert own or head == "torch" or head in sys.stdlib_module_names, (name, dotted)


def test_the_library_knows_no_recipe_and_only_data_and_rewards_by_their_interface():
    """A data set or a reward is an object that a recipe hands in."""
    kinds = {"GSM8K", "NuminaMathTIR", "MATH500", "Arithmetic", "UltraFeedback", "HHRLHF"}
    for name, tree in modules().items():
        if name.startswith("align"):
            names = {dotted.rpartition(".")[2] for dotted in _imported(tree)}
            used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            assert not (names | used) & kinds, name


def _loaded_after_importing(names):
    """The first of `names` whose import brings torch along, None if none does."""
    code = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        print(name)\n"
        "        break\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(names)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip() or None


def test_what_help_needs_loads_no_torch():
    recipes = [name for name in modules() if name.startswith("recipes")]
    names = [*WITHOUT_TORCH, *recipes, "align.chain", "align.files.locate", "align.files.folder"]
    assert _loaded_after_importing(names) is None


def test_the_check_above_does_see_torch():
    assert _loaded_after_importing(["rewards", "align.packing"]) == "align.packing"
