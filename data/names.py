"""What `--data TEXT` means.

arithmetic                          a short name
gsm8k:test                          … of a split
reasoning-gym:chain_sum             … of a task
my/rows.jsonl  my/rows.parquet      a file, its shape recognised from its columns
my/pos.jsonl+my/neg.jsonl           several files of one shape, read as one
my/folder                           all .jsonl and .parquet files of a folder
owner/name                          a hub data set of a known shape
@rejection                          what an earlier stage of the same run wrote
my/rows.jsonl?limit=500&style=r1    any of these with the source's own fields
ultrafeedback?use=kto               … pairs read as what another stage wants
my/folder?use=pairs&split=[:80%]    … labelled text as pairs, a held-out part kept apart
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any, get_type_hints

from data import files
from data.arithmetic import Arithmetic
from data.everyday import Everyday
from data.gym import ReasoningGym
from data.rows import DataError, Source
from data.sources import (
    GSM8K,
    HHRLHF,
    MATH500,
    BespokeStratos,
    Hub,
    Local,
    NuminaMathTIR,
    RottenTomatoes,
    UltraFeedback,
)
from data.stage_output import FromStage
from data.table import Table

NAMED: dict[str, type] = {
    "arithmetic": Arithmetic,
    "everyday": Everyday,
    "reasoning-gym": ReasoningGym,
    "gsm8k": GSM8K,
    "numinamath-tir": NuminaMathTIR,
    "bespoke-stratos": BespokeStratos,
    "math-500": MATH500,
    "ultrafeedback": UltraFeedback,
    "hh-rlhf": HHRLHF,
    "rotten-tomatoes": RottenTomatoes,
}
_BY_ID: dict[str, type[Table]] = {
    kind().id.lower(): kind for kind in NAMED.values() if issubclass(kind, Table)
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(text: str) -> Source:
    """The source that a text names. Raises DataError listing the names, the closest first, where it
    names none.

    Nothing is read, but files must exist. A short name goes before a folder of that name, and a
    folder with data in it before a hub id.
    """
    base, _, options = text.strip().partition("?")
    given = dict(_pair(each, text) for each in options.split("&") if each)
    if base.startswith("@"):
        return _make(FromStage, given | {"stage": base[1:]}, text)
    if _names_files(base):
        files.find(base)  # says what is missing
        return _make(Local, given | {"path": base}, text)
    name, _, variant = base.partition(":")
    if name.lower() in NAMED:
        kind = NAMED[name.lower()]
        if variant:
            given["task" if kind is ReasoningGym else "split"] = variant
        return _make(kind, given, text)
    if _HUB_ID.fullmatch(name):
        if variant:
            given["split"] = variant
        known = _BY_ID.get(name.lower())
        return _make(known, given, text) if known else _make(Hub, given | {"id": name}, text)
    close = difflib.get_close_matches(name.lower(), NAMED, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    raise DataError(
        f"--data {text}: no such data set; {hint}Known are {', '.join(NAMED)}, a .jsonl or "
        ".parquet file or a folder of them, or a hub id such as openai/gsm8k"
    )


def _names_files(base: str) -> bool:
    """Whether it is written like a file, or is one, or a folder that holds some, or several."""
    parts = [base] if Path(base).expanduser().exists() else base.split("+")
    for part in parts:
        place = Path(part).expanduser()
        written = part.lower().endswith(files.SUFFIXES) or part.startswith((".", "/", "~"))
        if written or place.is_file():
            return True
        if part.lower() not in NAMED and place.is_dir() and files.in_folder(place):
            return True
    return False


def _pair(text: str, whole: str) -> tuple[str, str]:
    key, mark, value = text.partition("=")
    if not mark:
        raise DataError(f"--data {whole}: {text!r} after the ? must be field=value")
    return key, value


def _make(kind: type, given: dict[str, str], text: str) -> Source:
    """The source with its fields parsed from text by their types."""
    hints = get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind) if field.name != "params"]
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in fields:
            raise DataError(
                f"--data {text}: {kind.__name__} has no field {key!r}; it has {', '.join(fields)}"
            )
        values[key] = _parsed(value, str(hints[key]), f"--data {text}: {key}")
    return kind(**values)


def _parsed(value: str, hint: str, where: str) -> Any:
    if "bool" in hint:
        if value.lower() not in ("true", "false"):
            raise DataError(f"{where}={value!r} must be true or false")
        return value.lower() == "true"
    if "int" in hint:
        if not re.fullmatch(r"-?\d+", value):
            raise DataError(f"{where}={value!r} must be a whole number")
        return int(value)
    return value
