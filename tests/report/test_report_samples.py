"""Which completions a page holds."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from page_parser import groups, load
from run_folders import GROUP, PROMPTS, STEPS, write_lines

from align import report
from align.report import samples


def test_large_runs_keep_first_last_and_evenly_spaced_steps(run_folder: Path) -> None:
    path = run_folder / "grpo" / "samples.jsonl"
    whole = samples.read_samples(path, budget=10**9)
    assert whole is not None
    assert (whole.completions, whole.notes) == (STEPS * PROMPTS * GROUP, [])
    size = len(json.dumps(whole.groups))
    budget = size // 2
    half = samples.read_samples(path, budget=budget)
    assert half is not None
    assert 0.7 * budget < len(json.dumps(half.groups)) <= budget + 1000
    steps = sorted({group["step"] for group in half.groups})
    gaps = {later - earlier for earlier, later in pairwise(steps)}
    assert (steps[0], steps[-1]) == (1, STEPS)
    assert max(gaps) - min(gaps) <= 1
    assert (
        f"{half.completions:,} of {STEPS * PROMPTS * GROUP:,} completions of grpo" in half.notes[0]
    )
    assert f"{len(steps)} of {STEPS} steps" in half.notes[0]


def test_huge_steps_lose_prompts_before_they_lose_steps(run_folder: Path) -> None:
    path = run_folder / "grpo" / "samples.jsonl"
    small = samples.read_samples(path, budget=30_000)
    assert small is not None
    assert len({group["step"] for group in small.groups}) == samples.FEWEST_STEPS
    assert len(json.dumps(small.groups)) < 31_000
    assert "prompts of those steps left out" in small.notes[0]


def test_endless_completion_keeps_its_beginning_and_its_end(run_folder: Path) -> None:
    path = run_folder / "grpo" / "samples.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    write_lines(path, [row | {"completion": "A" + "<" * 1_000_000 + "Z"} for _ in range(64)])
    page_path = report.write(run_folder)
    assert page_path.stat().st_size < 5_000_000
    rows = groups(load(page_path), "grpo")[0]["rows"]
    assert rows[0]["completion"].startswith("A<")
    assert rows[0]["completion"].endswith("<Z")
    assert "980,002 characters left out" in rows[0]["completion"]


@pytest.mark.parametrize(("n", "count"), [(10, 3), (100, 7), (5, 5), (3, 9), (9, 1)])
def test_spaced(n: int, count: int) -> None:
    chosen = samples.spaced(n, count)
    assert len(chosen) == len(set(chosen)) == min(n, count)
    assert chosen[-1] == n - 1
    assert chosen[0] == 0 or count == 1
