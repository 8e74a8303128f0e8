"""Whether a checkpoint's files are those that were written: a manifest has the size and sha256 of
each, and a sha256 of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
OWN = "sha256"  # of the manifest's other entries


class DamagedError(RuntimeError):
    """What is wrong with which file of a checkpoint."""


def fingerprint(path: Path) -> dict[str, Any]:
    """Of a file that is read whole: 2 GB a second on one core that has SHA instructions."""
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, and wait until it is on disk."""
    text = json.dumps(manifest)
    with (folder / MANIFEST).open("w") as file:
        json.dump({**json.loads(text), OWN: _hash(text)}, file)
        file.flush()
        os.fsync(file.fileno())


def opened(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint all of whose files are as they were written.

    Raises DamagedError.
    """
    manifest = _manifest(folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{name} is missing")
        if (size := path.stat().st_size) != expected["bytes"]:
            raise DamagedError(f"{name} has {size} bytes instead of {expected['bytes']}")
        if (found := fingerprint(path)["sha256"]) != expected["sha256"]:
            raise DamagedError(
                f"{name} was altered: its sha256 is {found[:12]}… instead of "
                f"{expected['sha256'][:12]}…"
            )
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        own = manifest.pop(OWN)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{MANIFEST} cannot be read ({type(error).__name__})") from error
    if own != _hash(json.dumps(manifest)):
        raise DamagedError(f"{MANIFEST} was altered: it does not match its own sha256")
    return manifest


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
