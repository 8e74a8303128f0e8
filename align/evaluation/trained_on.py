"""Did training see the problems of an evaluation? The data of a stage and of all it came from.

Asked of what can be read without a network; the rest is named. Nothing here stops an evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
from align.config import Stage
from align.files.folder import described
from align.recipe import Recipe
from align.references import parents
from data import contamination, hub
from data.rows import nth

EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """A source of training data, and the first stage that reads it."""

    stage: str
    source: data.Source


def training_of(recipe: Recipe, model: str, out: Path) -> list[TrainingData]:
    """The data behind the model in folder `model`, each source once, the earliest stage first.

    Empty for a model that no stage of this run folder wrote. A stage that has run is asked for the
    values it ran with, which may differ from the recipe's.
    """
    stages = {stage.name: stage for stage in recipe.stages}
    folders = [parent.resolve() for parent in Path(model).parents]
    wanted = [name for name in stages if (out / name).resolve() in folders]
    for name in reversed(stages):  # a stage names only earlier ones
        if name in wanted:
            wanted += [each for each in parents(stages[name]) if each not in wanted]
    found: dict[str, TrainingData] = {}
    for name in stages:
        for source in _sources(stages[name], out) if name in wanted else ():
            key = json.dumps(described(source), sort_keys=True, default=str)
            found.setdefault(key, TrainingData(stage=name, source=source))
    return list(found.values())


def _sources(stage: Stage, out: Path) -> list[data.Source]:
    written = out / stage.name / "config.json"
    if written.is_file():
        try:
            return _made(json.loads(written.read_text()))
        except (TypeError, data.DataError):
            pass  # of a source whose fields were others then: what the recipe says is the next best
    return _made(described(stage))


def _made(config: dict[str, Any]) -> list[data.Source]:
    made = [_source(value) for value in config.values()]
    return [source for source in made if isinstance(source, data.Source)]


def _source(value: Any) -> Any:
    """The source that `described` wrote; of anything else itself."""
    if isinstance(value, list):
        return tuple(_source(each) for each in value)
    if not isinstance(value, dict):
        return value
    kind = getattr(data, str(value.get("kind")), None)
    if not isinstance(kind, type):
        return value
    return kind(**{name: _source(each) for name, each in value.items() if name != "kind"})


def check(prompts: Sequence[str], training: Sequence[TrainingData], out: Path) -> dict[str, Any]:
    """The overlap with each source, as it goes into a result.

    `matched` counts prompts found in any source; `unread` names the sources that could not be read,
    with the reason.
    """
    matched: set[int] = set()
    sources, unread = [], []
    for each in training:
        about = {"stage": each.stage, "name": each.source.name}
        try:
            with hub.without_network():
                rows = data.placed(each.source, out).rows()
        except data.DataError as error:
            unread.append(about | {"why": str(error)})
            continue
        found = contamination.overlap(contamination.prompt_texts(rows), prompts)
        matched |= {match.prompt for match in found.matches}
        examples = [
            {"row": match.prompt, "training_row": match.training, "words": match.words}
            for match in found.matches[:EXAMPLES]
        ]
        counts = {"training": found.training, "matched": found.matched}
        sources.append(about | counts | {"examples": examples})
    return {
        "n": contamination.WORDS,
        "prompts": len(prompts),
        "matched": len(matched),
        "share": len(matched) / len(prompts),
        "sources": sources,
        "unread": unread,
    }


def line(found: dict[str, Any]) -> str:
    """One line for the terminal, a loud one where training saw a prompt."""
    unread = "".join(f"; not read: {each['name']} of {each['stage']}" for each in found["unread"])
    looked = ", ".join(f"{each['name']} ({each['training']:,})" for each in found["sources"])
    if not found["matched"]:
        checked = f"no prompt stands in the training data {looked}" if looked else "not checked"
        return f"contamination: {checked}{unread}"
    worst = max(found["sources"], key=lambda each: each["matched"])
    example = worst["examples"][0]
    return (
        f"WARNING, contamination: {found['matched']:,} of {found['prompts']:,} prompts "
        f"({found['share']:.1%}) stand in the training data, whole or by {found['n']} words in a "
        f"row; {worst['matched']:,} in {worst['name']} of stage {worst['stage']}, such as the "
        f"{nth(example['row'])}, its {nth(example['training_row'])}: {example['words'][:100]!r}"
        f"{unread}"
    )
