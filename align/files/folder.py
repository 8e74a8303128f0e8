"""The files of a run folder: what a stage writes around its training.

OUT/recipe.json                    the recipe's name and stages
OUT/STAGE/config.json              the resolved configuration
OUT/STAGE/manifest.json            where the result comes from, see `manifest`
OUT/STAGE/metrics.jsonl, samples.jsonl, checkpoints/
OUT/STAGE/model/                   the result, in Hugging Face layout
OUT/STAGE/done.json                written last: steps and the weights' hash
OUT/chain.json                     what the last call of scripts/run.py did, see `chain`
OUT/evaluations/LABEL.json(l), OUT/report.html
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from align.config import Evaluation
from align.files.disk import FolderError, whole, writing
from align.files.locate import Located
from align.recipe import Recipe
from data import fingerprint

# Of a weight file: every tensor of a model that was trained differs, so samples of it do.
BLOCKS, BLOCK_BYTES = 256, 2**16


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all. Raises FolderError where the disk does not take it."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    with whole(path) as file:
        file.write(text.encode())


def write_recipe(out: Path, recipe: Recipe) -> None:
    out.mkdir(parents=True, exist_ok=True)
    stages = [stage.name for stage in recipe.stages]
    write_json(out / "recipe.json", {"recipe": recipe.name, "stages": stages})


def read_object(path: Path, *, needs: Sequence[str], cure: str) -> dict[str, Any]:
    """The JSON object in a file, with these entries. Raises FolderError for anything else, and
    FileNotFoundError.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise FolderError(f"{path} cannot be read ({error}): {cure}") from error
    lacking = [name for name in needs if not isinstance(found, dict) or name not in found]
    if lacking or not isinstance(found, dict):
        raise FolderError(f"{path} cannot be read (it has no {', '.join(lacking)}): {cure}")
    return found


def made_by(stage: Path, what: Literal["weights", "data"]) -> str:
    """The hash of what a complete stage has written. Raises FolderError where done.json does not
    say it.
    """
    cure = f"delete {stage}, and its stage runs again"
    return str(read_object(stage / "done.json", needs=(what,), cure=cure)[what])


def check_written(stage: Path, names: Sequence[str]) -> None:
    """Raises FolderError where a complete stage lacks a file of what it has written."""
    for name in names:
        if not (stage / name).is_file():
            raise FolderError(
                f"{stage / name} is gone, which {stage / 'done.json'} speaks of: delete "
                f"{stage / 'done.json'}, and --resume writes it again"
            )


def is_done(stage: Path) -> bool:
    return (stage / "done.json").is_file()


def prepare(stage: Path, *, resume: bool) -> None:
    """Make the stage's folder, or refuse one that holds a run which was not to be resumed."""
    check_unheld(stage, resume=resume)
    made(stage)


def check_unheld(stage: Path, *, resume: bool) -> None:
    """Raises FolderError where it holds a run which was not to be resumed."""
    if not resume and (stage / "metrics.jsonl").exists():
        raise FolderError(
            f"{stage} already holds a run: add --resume to continue it, choose another folder with "
            f"--out, or delete it"
        )


def made(folder: Path) -> Path:
    """The folder, made where it is not there. Raises FolderError where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be made ({error.strerror}): choose another folder with --out"
        ) from error
    return folder


def export(stage: Path, save: Callable[[Path], None], about: Callable[[Path], Any]) -> None:
    """Write the model and then done.json; a kill or a full disk on the way leaves neither."""
    partial, final = stage / ".model.partial", stage / "model"
    shutil.rmtree(partial, ignore_errors=True)
    with writing(stage, half=partial):
        save(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    write_json(stage / "done.json", about(final))


def identity(path: str) -> str:
    """What tells the weights in a folder from others': their hash where a stage wrote them, else a
    hash of blocks all over the files; of what is no folder, its name.
    """
    folder = Path(path)
    if is_done(folder.parent) and folder.name == "model":
        return made_by(folder.parent, "weights")
    files = [folder] if folder.is_file() else sorted(folder.glob("*.safetensors"))
    files = files or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        return path
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            for block in range(BLOCKS):
                opened.seek(block * size // BLOCKS)
                digest.update(opened.read(BLOCK_BYTES))
    return f"blocks:{digest.hexdigest()}"


def weights_of(located: Located) -> str:
    """The identity of what was located, made or not yet: of a hub id its name."""
    found = identity(located.path)
    return f"{located.layers} layers of {found}" if located.layers else found


def result(out: Path, label: str, config: Evaluation) -> Path:
    """Where the result of an evaluation under that label stands."""
    name = label if config.name == Evaluation.name else f"{label}.{config.name}"
    return out / "evaluations" / f"{name}.json"


def evaluated(out: Path, label: str, config: Any, located: Located) -> bool:
    """Whether the result under that label is of these very weights and values. Raises FolderError
    for a result that cannot be read.
    """
    path = result(out, label, config)
    if not path.is_file():
        return False
    asked = {
        "weights": weights_of(located),
        "config": described(config),
        "files": fingerprint.of_files(config),
    }
    cure = f"delete {path}, and the model is evaluated again"
    return asked.items() <= read_object(path, needs=(), cure=cure).items()


def described(value: Any) -> Any:
    """A configuration as JSON: dataclasses as their fields with their type, objects by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": getattr(value, "kind", type(value).__name__)} | fields
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, functools.partial):
        given = {"args": described(value.args), "keywords": described(value.keywords)}
        return {"kind": "partial", "function": described(value.func)} | given
    if cells := getattr(value, "__closure__", None):  # two of one function differ in these
        return {"kind": value.__name__, "closure": [described(c.cell_contents) for c in cells]}
    return getattr(value, "__name__", str(value))
