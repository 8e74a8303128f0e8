"""What one recipe needs: models, data, sampler, and room for what its stages write."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import httpx
from safetensors import safe_open

import data
from align import recipe as recipes
from align.config import Evaluation, Ppo, Stage
from align.config.parts import Training
from align.doctor.asked import SETUP, Asked
from align.doctor.versions import VLLM_BUILDS, installed
from align.files.disk import existing
from align.files.locate import Located, MissingError, hub_problem, locate
from align.references import references, stages_named
from align.terminal.findings import Findings
from align.terminal.sizes import gib

WEIGHTS, STATE = 4, 12  # bytes a parameter: float32; with Adam's two moments


def check(asked: Asked, found: Findings) -> None:
    """Of every stage and evaluation. Raises RecipeError where there is no such recipe."""
    recipe = recipes.load(asked.recipe or "")
    located = _models(recipe, asked, found)
    _data(recipe, found)
    _samplers((*recipe.stages, *recipe.evaluations), found)
    _room(recipe, located, asked, found)


def _models(recipe: recipes.Recipe, asked: Asked, found: Findings) -> dict[str, Located]:
    """Where each model is that no stage of the recipe writes."""
    named = dict.fromkeys(name for stage in recipe.stages for name in references(stage))
    outside = [name for name in named if not stages_named(name)]

    def look(name: str) -> Located | MissingError:
        try:
            return locate(name, asked.folder, recipe=recipe.name)
        except MissingError as error:
            return error

    with ThreadPoolExecutor(8) as pool:  # each asks the hub, with a time limit of its own
        answers = dict(zip(outside, pool.map(look, outside), strict=True))
    there: dict[str, Located] = {}
    for name, answer in answers.items():
        if isinstance(answer, Located):
            there[name] = answer
            found.note("model", f"{name}: {answer.kind} {answer.path}")
        else:
            why, _, cure = str(answer).rpartition("; ")
            stage = next(stage for stage in recipe.stages if name in references(stage))
            said = _whose("model", stage) if name == stage.model else ""
            found.error("model", why or cure, (cure or why) + said)
    return there


def _data(recipe: recipes.Recipe, found: Findings) -> None:
    """That local files are there, and what else is read in the cache or on the hub."""
    for stage in (*recipe.stages, *recipe.evaluations):
        try:
            files = data.fingerprint.of_files(stage)
        except data.DataError as error:
            cure = f"--data FILE.jsonl, or --data arithmetic{_whose('data', stage)}"
            found.error("data", f"{stage.name}: {error}", cure)
            continue
        if files:
            found.note("data", f"{stage.name}: {', '.join(files)}")
    sources = {stage.data.name for stage in recipe.stages}
    found.note("data", f"read by the stages: {', '.join(sorted(sources))}")
    _on_the_hub(recipe, found)


def _on_the_hub(recipe: recipes.Recipe, found: Findings) -> None:
    """Data sets that are neither in the cache nor to be had."""
    readers: dict[str, Stage | Evaluation] = {}
    for part in (*recipe.stages, *recipe.evaluations):
        for name in _hub_ids(part.data):
            readers.setdefault(name, part)
    absent = [name for name in readers if not _cached(name)]
    with ThreadPoolExecutor(8) as pool:
        problems = pool.map(lambda name: hub_problem(f"datasets/{name}"), absent)
        for name, problem in zip(absent, problems, strict=True):
            if problem is not None:
                part = readers[name]
                said = f"{part.name}: {name} is not in the local cache, and {problem}"
                cure = f"--data FILE.jsonl with a copy of it{_whose('data', part)}"
                found.warning("data", said, cure)


def _hub_ids(value: Any) -> list[str]:
    """Of every table of the hub in a source, however deep in mixtures."""
    if isinstance(value, data.table.Table):
        return [value.id] if value.id and not value.path else []
    if isinstance(value, tuple):
        return [name for part in value for name in _hub_ids(part)]
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return [name for field in fields for name in _hub_ids(getattr(value, field.name))]
    return []


def _cached(name: str) -> bool:
    """Whether `datasets` has made that data set's rows here once; without importing it."""
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{general}/huggingface"
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or f"{home}/datasets").expanduser()
    # Its folder is called owner___name, with the name in a spelling of its own.
    return any(_plain(folder.name) == _plain(name) for folder in cache.glob("*___*"))


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def _whose(flag: str, part: Stage | Evaluation) -> str:
    """Which script a flag belongs to, as the doctor has none of them."""
    script = getattr(part, "kind", "evaluate")
    return f" (to scripts/{script}.py; to scripts/run.py --{part.name}.{flag} …)"


def _samplers(parts: Sequence[Stage | Evaluation], found: Findings) -> None:
    engines = {part.name: part.engine for part in parts if hasattr(part, "engine")}
    inside = [name for name, engine in engines.items() if engine.kind == "vllm"]
    if inside and not any(installed(name) for name in VLLM_BUILDS):
        said = f"{', '.join(inside)}: --engine.kind vllm, and vLLM is not installed"
        found.error("sampler", said, f"{SETUP}; or --engine.kind hf")
    for name, engine in engines.items():
        if engine.kind == "server":
            _server(name, engine.url, found)
    if not engines:
        found.note("sampler", "none is needed")
    elif inside:
        found.note("sampler", f"vLLM in the process: {', '.join(inside)}")


def _server(name: str, url: str, found: Findings) -> None:
    try:
        httpx.get(f"{url}/health", timeout=2.0, trust_env=False).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"{name}: no server answers at {url} ({type(error).__name__})"
        start = f"VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --port {url.rpartition(':')[2]} …"
        found.error("sampler", said, f"{start} (README), or give another with --engine.url")
    else:
        found.note("sampler", f"{name}: a server answers at {url}")


def _room(
    recipe: recipes.Recipe, located: dict[str, Located], asked: Asked, found: Findings
) -> None:
    """Checkpoints and models of all stages, against the disk of the run folder."""
    counts = {name: _parameters(where) for name, where in located.items()}
    unknown = sorted(name for name, count in counts.items() if not count)
    sizes: dict[str, int] = {}
    need = 0
    for stage in recipe.stages:
        start = stages_named(stage.model)
        count = sizes.get(start[0], 0) if start else counts.get(stage.model, 0)
        if stage.writes != "data":
            sizes[stage.name] = count
            need += written(stage, count)
    folder = existing(asked.folder)
    free = shutil.disk_usage(folder).free
    said = f"the stages write about {gib(need)}, {gib(free)} are free in {folder}"
    if unknown:
        said += f"; not counted, because not here yet: what starts from {', '.join(unknown)}"
    if need > free:
        cure = "--out on another disk, or fewer checkpoints: --STAGE.checkpoints.keep 1"
        found.error("disk", said, cure)
    else:
        found.note("disk", said)


def written(stage: Stage, parameters: int) -> int:
    """Bytes that a stage holds at most: its model, its checkpoints and one more being written."""
    model = WEIGHTS * parameters
    if not isinstance(stage, Training):
        return model
    heads = 2 if isinstance(stage, Ppo) and stage.critic == "separate" else 1
    trained = 0 if stage.lora.rank else parameters
    if isinstance(stage, Ppo) and stage.lora.rank:
        trained, heads = parameters, heads - 1  # a separate critic trains whole
    kept, steps = stage.checkpoints.keep + 1, getattr(stage, "steps", 0)
    if not stage.checkpoints.every:
        kept = 1  # on SIGTERM
    elif steps:  # a pass over the data has a length that only the data tell
        kept = min(kept, max(1, steps // stage.checkpoints.every))
    return model + STATE * trained * heads * kept


def _parameters(where: Located) -> int:
    """By the files' headers alone; 0 where they are not here."""
    if where.kind == "gguf":
        from gguf import GGUFReader

        return sum(int(each.n_elements) for each in GGUFReader(where.path).tensors)
    count = 0
    if where.kind == "folder":
        for file in Path(where.path).glob("*.safetensors"):
            with safe_open(file, framework="numpy") as opened:
                names = opened.keys()
                count += sum(prod(opened.get_slice(name).get_shape()) for name in names)
    return count
