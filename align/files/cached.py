"""Models that are not used where they are: downloaded from the hub, or made once and kept."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock
from huggingface_hub import snapshot_download

from align.files.disk import writing
from align.files.trusted import PICKLES, ModelError

log = logging.getLogger(__name__)
OTHER = ["*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*"]
NOT_READ = [*PICKLES, *OTHER]


def cache_folder() -> Path:
    """Where models that had to be made (GGUF, random weights, fewer layers) are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "align" / "models"


def downloaded(repository: str, *, weights: bool = True, pickled: bool = False) -> str:
    """The folder of a hub id. weights: without, only what tells about the model. pickled: whether
    such weights were asked for. Raises ModelError where it has no others and they were not.
    """
    left_out = OTHER if pickled else NOT_READ if weights else [*NOT_READ, "*.safetensors"]
    path = snapshot_download(repository, ignore_patterns=left_out)
    if weights and not pickled and not any(Path(path).glob("*.safetensors")):
        raise ModelError(
            f"{repository} holds no *.safetensors weights, and pickled ones are read only where "
            f"they are asked for by name, as tensors alone: --model pickled:{repository}"
        )
    return path


def stamp(file: Path) -> str:
    """Tells whether what was made of a file was made of this one."""
    about = file.stat()
    return f"{file.resolve()}:{about.st_size}:{about.st_mtime_ns}"


def place(name: str, key: str) -> Path:
    """The cache's folder for that key, whether it is there or not."""
    return cache_folder() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def made(name: str, key: str, make: Callable[[Path], None]) -> str:
    """The cache's folder for that key, written by `make` where it is not there yet."""
    folder = place(name, key)
    with _held(folder):
        if not (folder / "config.json").is_file():
            half = folder.with_name(f"{folder.name}.partial")
            for left in (half, folder):
                shutil.rmtree(left, ignore_errors=True)
            log.info("making %s (once)", folder)
            with writing(folder.parent, half=half):
                make(half)
                half.rename(folder)
    return str(folder)


def _held(folder: Path) -> AbstractContextManager[FileLock]:
    """The lock of a folder of the cache, taken."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{folder}.lock").acquire()
    except OSError as error:
        raise ModelError(
            f"the cache {folder.parent} cannot be used ({error.strerror}): name a folder that can "
            "be written to in the environment variable XDG_CACHE_HOME"
        ) from error
