"""The sampled completions that go into the page: all of them, or as many as fit.

`payload.py` says how they get there. A log of gigabytes is read line by line: the first pass keeps
offsets and sizes, the second reads the chosen.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.report.folder import Row, json_lines, row_at, unreadable

LONGEST_TEXT = 20_000  # characters of one prompt or completion
# Below this many steps prompts are left out instead, so that progress stays visible.
FEWEST_STEPS = 12
FIELDS = (
    "sample",
    "reward",
    "advantage",
    "correct",
    "length",
    "truncated",
    "outcome",
    "parts",
    "kept",
    "reason",
)

# step → prompt_index → [(byte offset, bytes of JSON)] in the order sampled
Index = dict[int, dict[Any, list[tuple[int, int]]]]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the page gets, and what to say about what it leaves out."""

    groups: list[Row]
    completions: int
    notes: list[str]


def clip(value: object) -> str:
    """A text for the page; of an endless one its beginning and its end, where the answer is."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    left_out = len(text) - LONGEST_TEXT
    if left_out <= 0:
        return text
    head, tail = text[: LONGEST_TEXT * 3 // 4], text[-LONGEST_TEXT // 4 :]
    return f"{head}\n[… {left_out:,} characters left out of this page …]\n{tail}"


def spaced(n: int, count: int) -> list[int]:
    """`count` of range(n), evenly spaced, with the first and the last (the last alone for 1)."""
    if count >= n:
        return list(range(n))
    if count == 1:
        return [n - 1]
    return [round(i * (n - 1) / (count - 1)) for i in range(count)]


def read_samples(path: Path, *, budget: int) -> Samples | None:
    """The samples of one stage within `budget` bytes of JSON; None where there are none."""
    if not path.is_file():
        return None
    index, bad = _index(path)
    if not index:
        return None
    chosen = choose(index, budget)
    with path.open("rb") as file:
        groups = [
            _group(step, [row_at(file, offset) for offset in offsets])
            for step, prompts in chosen.items()
            for offsets in prompts
        ]
    kept = sum(len(group["rows"]) for group in groups)
    notes = unreadable(path, bad) + _left_out(path, index, chosen, kept)
    return Samples(groups=groups, completions=kept, notes=notes)


def budgets(sizes: list[int], total: int) -> list[int]:
    """What each log may take of `total` bytes: what it needs, or an equal share of what is left."""
    granted = [0] * len(sizes)
    left, order = total, sorted(range(len(sizes)), key=lambda i: sizes[i])
    for place, index in enumerate(order):
        granted[index] = min(sizes[index], left // (len(order) - place))
        left -= granted[index]
    return granted


def _index(path: Path) -> tuple[Index, int]:
    index: Index = {}
    bad = 0
    for offset, row in json_lines(path):
        if row is None or not isinstance(row.get("step"), int):
            bad += 1
            continue
        prompts = index.setdefault(row["step"], {})
        key = json.dumps(row.get("prompt_index"))
        new = key not in prompts  # the first of a group brings the prompt along
        size = len(json.dumps(_group(row["step"], [row]) if new else _compact(row)))
        prompts.setdefault(key, []).append((offset, size + 1))
    return index, bad


def choose(index: Index, budget: int) -> dict[int, list[list[int]]]:
    """Step → groups → byte offsets, within the budget.

    Whole steps as long as a dozen of them fit: the first, the last and evenly spaced ones between.
    Where even those are too many, evenly spaced prompts of each, and at last only some of a
    group's samples.
    """
    steps = sorted(index)
    cost = {step: sum(size for g in index[step].values() for _, size in g) for step in steps}
    count = len(steps)
    while count > FEWEST_STEPS and sum(cost[steps[i]] for i in spaced(len(steps), count)) > budget:
        count -= max(1, count // 20)
    kept = [steps[i] for i in spaced(len(steps), count)]
    whole = sum(cost[step] for step in kept) <= budget
    share = budget if whole else budget // len(kept)
    return {step: _choose_groups(list(index[step].values()), share) for step in kept}


def _choose_groups(groups: list[list[tuple[int, int]]], budget: int) -> list[list[int]]:
    count = len(groups)
    cost = [sum(size for _, size in group) for group in groups]
    while count > 1 and sum(cost[i] for i in spaced(len(groups), count)) > budget:
        count -= 1
    kept = [groups[i] for i in spaced(len(groups), count)]
    if count > 1 or sum(size for _, size in kept[0]) <= budget:
        return [[offset for offset, _ in group] for group in kept]
    fitting, used = [kept[0][0][0]], kept[0][0][1]
    for offset, size in kept[0][1:]:
        used += size
        if used > budget:
            break
        fitting.append(offset)
    return [fitting]


def _group(step: int, rows: list[Row]) -> Row:
    first = rows[0]
    return {
        "step": step,
        "prompt_index": first.get("prompt_index"),
        "prompt": clip(first.get("prompt")),
        "solution": None if first.get("solution") is None else clip(first["solution"]),
        "rows": [_compact(row) for row in rows],
    }


def _compact(row: Row) -> Row:
    """The figures that are there: what a stage does not measure takes no place."""
    figures = {key: row[key] for key in FIELDS if row.get(key) is not None}
    return {"completion": clip(row.get("completion"))} | figures


def _left_out(path: Path, index: Index, chosen: dict[int, list[list[int]]], kept: int) -> list[str]:
    total = sum(len(group) for prompts in index.values() for group in prompts.values())
    if kept == total:
        return []
    text = (
        f"To stay usable this page shows {kept:,} of {total:,} completions of {path.parent.name}, "
        f"from {len(chosen):,} of {len(index):,} steps (the first, the last and evenly spaced ones)"
    )
    cut = sum(len(index[step]) - len(groups) for step, groups in chosen.items())
    if cut:
        text += f", {cut:,} prompts of those steps left out as well"
    return [f"{text}. All {total:,} are in {path.parent.name}/{path.name}."]
