"""That the scripts import this checkout's packages and no other's, and find what they import."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from align.doctor.asked import HOME, PIP, SETUP, Asked
from align.doctor.versions import project
from align.terminal.findings import Findings

PACKAGES = ("align", "data", "recipes", "rewards")


def check_project(asked: Asked, found: Findings) -> None:
    """Installed as editable from here, hidden by nobody, scripts importable."""
    before = len(found.found)
    _installed_from_here(found)
    for name in PACKAGES:
        _ours(name, found)
    _scripts(found)
    if len(found.found) == before:
        found.note("project", f"installed as editable; the scripts import what is in {HOME}")


def _installed_from_here(found: Findings) -> None:
    cure = f"{PIP} install --constraint constraints.txt --editable '.[dev,smollm2]'"
    try:
        about = project().read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        found.error("project", f"the project is not installed in {sys.prefix}", cure)
        return
    origin = json.loads(about or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        said = "the project is installed as a copy: changes of this checkout do not count"
        found.warning("project", said, cure)
    elif (folder := Path(origin.get("url", "").removeprefix("file://"))).resolve() != HOME:
        found.warning("project", f"the project installed is that of {folder}, not {HOME}", cure)


def _ours(name: str, found: Findings) -> None:
    """That importing this name brings the checkout's package."""
    # The finder itself, so that what is imported already does not answer.
    spec = PathFinder.find_spec(name)
    where = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations), "")
    if where is None:
        found.error("project", f"the package {name} is not found", SETUP)
    elif not Path(where).resolve().is_relative_to(HOME / name):
        owner = importlib.metadata.packages_distributions().get(name, [])
        foreign = [each for each in owner if each != "align"]
        folder = Path(where).parent if spec.origin else Path(where)
        cure = f"{PIP} uninstall -y {foreign[0]}" if foreign else (
            f"take {folder.parent} off PYTHONPATH, or rename {folder}"
        )  # fmt: skip
        whose = f" of the package {foreign[0]}" if foreign else ""
        found.error("project", f"importing {name} brings {where}{whose}, not the project's", cure)


def _scripts(found: Findings) -> None:
    """That whatever the scripts import at their head is there."""
    for script in sorted((HOME / "scripts").glob("*.py")):
        tree = ast.parse(script.read_text(encoding="utf-8"), filename=str(script))
        for name in dict.fromkeys(_heads(tree)):
            known = name in sys.stdlib_module_names or name in PACKAGES
            if not known and PathFinder.find_spec(name) is None:
                said = f"scripts/{script.name} imports {name}, which is not installed"
                found.error("project", said, SETUP)


def _heads(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            names += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module.partition(".")[0])
    return names
